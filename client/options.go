package client

import (
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Options are what may be asked for a transaction beside its branches. Durations are
// carried in whole seconds and rounded up; zero values mean the server's defaults.
type Options struct {
	GID            string
	Wait           bool
	TimeoutToFail  time.Duration
	RetryInterval  time.Duration
	RequestTimeout time.Duration
	RetryLimit     int
	Headers        map[string]string
}

// An Option changes one transaction.
type Option func(*Options)

// GID gives the transaction a name of the caller's: an order's number. A request with
// the name of an earlier transaction is taken for its repetition. At most 128 bytes of
// printable text, without ';' and without spaces around it. Without this option the name is [NewGID].
func GID(gid string) Option { return func(o *Options) { o.GID = gid } }

// Wait lets the request return when each branch has been called: nil then means that
// the transaction has succeeded. Without it nil means that it is in the server's store.
func Wait() Option { return func(o *Options) { o.Wait = true } }

// TimeoutToFail is after what time a saga is undone, a TCC or XA that was not submitted
// is aborted, and the sender of a message that was not submitted is asked. The server's
// default is 35 s, for sagas none.
func TimeoutToFail(d time.Duration) Option { return func(o *Options) { o.TimeoutToFail = d } }

// RetryInterval is the pause before a branch is called again; it doubles each time. The
// server's default is 10 s.
func RetryInterval(d time.Duration) Option { return func(o *Options) { o.RetryInterval = d } }

// RequestTimeout is how long one call of a branch by the server may take. The server's
// default is 3 s.
func RequestTimeout(d time.Duration) Option { return func(o *Options) { o.RequestTimeout = d } }

// RetryLimit lets a saga's action count as failed after n repetitions, which are made at
// once. Without it an action is called until it gives one of the agreed answers.
func RetryLimit(n int) Option { return func(o *Options) { o.RetryLimit = n } }

// Header is sent with each call of a branch by the server.
func Header(key, value string) Option {
	return func(o *Options) {
		headers := maps.Clone(o.Headers)
		if headers == nil {
			headers = make(map[string]string, 1)
		}
		headers[key] = value
		o.Headers = headers
	}
}

func optionsOf(opts []Option) Options {
	var o Options
	for _, f := range opts {
		f(&o)
	}
	if o.GID == "" {
		o.GID = NewGID()
	}
	return o
}

const gidMax = 128 // bytes

// check names what is wrong with the options.
func (o *Options) check() error {
	switch {
	case len(o.GID) > gidMax:
		return fmt.Errorf("gid has %d bytes, the limit is %d", len(o.GID), gidMax)
	case o.TimeoutToFail < 0, o.RetryInterval < 0, o.RequestTimeout < 0:
		return fmt.Errorf("a duration is negative: %v, %v, %v", o.TimeoutToFail, o.RetryInterval, o.RequestTimeout)
	case o.RetryLimit < 0:
		return fmt.Errorf("retry limit is negative: %d", o.RetryLimit)
	}
	for _, c := range o.GID {
		if unicode.IsControl(c) || c == ';' || c == utf8.RuneError {
			return fmt.Errorf("gid has the character %q: use letters, digits and punctuation but ';'", c)
		}
	}
	if strings.TrimSpace(o.GID) != o.GID { // participants' barriers would refuse it for ever
		return fmt.Errorf("gid %q begins or ends with a space", o.GID)
	}
	return nil
}

// Seconds is a duration as dtm's protocols carry it: whole seconds, rounded up.
func Seconds(d time.Duration) int64 {
	whole := int64(d / time.Second)
	if d%time.Second > 0 {
		whole++
	}
	return whole
}
