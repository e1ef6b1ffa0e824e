// Package redisbarrier is package barrier for business data in Redis.
//
// There the barrier is a key for each step, beside the data, and one script that looks
// at the key, does the business and writes the key. Redis runs a script as one, so what
// holds of the table holds of the keys. They are named as dtm's client names them,
//
//	<gid>-<branch_id>-<op>-<barrier_id>
//
// with the value "op", or "rollback" if the step was ruled out, so both clients can
// share a Redis. Unlike dtm's, the script looks at the key before it looks at the
// balance: a repetition of what was done is answered success also when a later
// transaction has taken what was left. It also knows the rollback of a workflow.
//
// # What Redis does not promise
//
// With its usual settings Redis loses up to a second of what it acknowledged when it
// crashes, data and keys together, and a replica that takes over may not have the last
// writes. A step that was answered is then not done. Set appendonly yes and appendfsync
// always where that matters.
//
// In a cluster all keys of a script must be in one slot: give the gid and the keys of the
// data the same hash tag, such as "{order-7}".
//
// A name that contains "-" can be read in two ways: branch 01-02 of gid a, or branch
// 02 of gid a-01. Branch ids of that form come from topics with several subscribers; do
// not let one gid be another with "-" and two digits at its end.
package redisbarrier

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/troth-tx/troth/barrier"
)

// ErrRefused is the error of a step whose business said no, with no change made; the step may come again. A
// participant answers failure if nothing can change that.
var ErrRefused = errors.New("redisbarrier: refused")

// Config configures a [Barrier].
type Config struct {
	// Expiry is how long a step's key is kept. The argument at [barrier.Table.Clean]
	// holds here, too: it has to be longer than any transaction may take with all the
	// server's repetitions. Whole seconds, at least an hour. Defaults to 7 days.
	Expiry time.Duration
}

const (
	expiryDefault = 7 * 24 * time.Hour
	expiryMin     = time.Hour
)

// A Barrier is a barrier in a Redis. It is safe for concurrent use.
type Barrier struct {
	client redis.Scripter
	expiry int64 // seconds
}

// New returns the barrier in the Redis of client: a *redis.Client, *redis.ClusterClient,
// redis.UniversalClient. cfg may be nil. It sends nothing. All errors are
// [barrier.ErrInvalid].
func New(client redis.Scripter, cfg *Config) (*Barrier, error) {
	if client == nil || reflect.ValueOf(client).Kind() == reflect.Pointer && reflect.ValueOf(client).IsNil() {
		return nil, fmt.Errorf("%w: client is nil", barrier.ErrInvalid)
	}
	expiry := expiryDefault
	if cfg != nil && cfg.Expiry != 0 {
		expiry = cfg.Expiry
	}
	if expiry < expiryMin {
		return nil, fmt.Errorf("%w: Expiry %v: want at least %v", barrier.ErrInvalid, expiry, expiryMin)
	}
	return &Barrier{client, int64(expiry / time.Second)}, nil
}

// A Script is business in Lua. Make it once, with [NewScript].
type Script struct{ script *redis.Script }

// NewScript returns business from the body of a Lua function that gets KEYS and ARGV,
// those that are given to [Barrier.Run], and calls redis.call. It ends with
//
//	return true, result       -- done; result is optional
//	return false, "reason"    -- refused; nothing may have been changed before
//
// and nothing returned is done, too. Redis undoes nothing: if the body fails after it
// has changed something, the change stays and the step counts as not done. So it must
// check everything before it writes, the types of values included.
func NewScript(body string) *Script {
	return &Script{redis.NewScript(before + body + after)}
}

// The script around the business. KEYS: the step's, that of the step it undoes if there
// is one, the business's. ARGV: the number of our keys, the expiry, the business's.
const (
	before = `
local function business(KEYS, ARGV)
`
	after = `
end
local ours, expiry = tonumber(ARGV[1]), ARGV[2]
local before = redis.call('GET', KEYS[1])
if before == 'rollback' then return {'late'} end
if before then return {'repeat'} end
if ours == 2 then
	local undone = redis.call('GET', KEYS[2])
	if not undone or undone == 'rollback' then
		redis.call('SET', KEYS[1], 'op', 'EX', expiry)
		redis.call('SET', KEYS[2], 'rollback', 'EX', expiry)
		return {'empty'}
	end
end
local keys, args = {}, {}
for i = ours + 1, #KEYS do keys[i - ours] = KEYS[i] end
for i = 3, #ARGV do args[i - 2] = ARGV[i] end
local done, result = business(keys, args)
if done == false then return {'refused', tostring(result)} end
redis.call('SET', KEYS[1], 'op', 'EX', expiry)
return {'proceed', result}
`
)

// Run does the step once. The verdict is what was done: [barrier.Proceed] means that this
// call did the business, and only then there may be a result. The others need no more
// than an answer of success.
//
// The error is [ErrRefused] if the business refused. Op msg has no harmless repetition:
// [barrier.ErrDuplicated], or also [barrier.ErrRuledOut], come with it only. After any
// other error the business may have been done; Run may simply be called again. The
// client does so by itself when a connection breaks, so that ErrDuplicated may come from
// one's own first attempt: ask [Barrier.QueryPrepared].
func (b *Barrier) Run(ctx context.Context, s barrier.Step, business *Script, keys []string, args ...any) (barrier.Verdict, any, error) {
	if b == nil || b.client == nil || business == nil || business.script == nil {
		return 0, nil, fmt.Errorf("%w: barrier or script is nil", barrier.ErrInvalid)
	}
	own, undone, err := s.Key()
	if err != nil {
		return 0, nil, err
	}
	all := []string{own}
	if undone != "" {
		all = append(all, undone)
	}
	answer, err := business.script.Run(ctx, b.client, append(all, keys...), append([]any{len(all), b.expiry}, args...)...).Slice()
	if err != nil {
		return 0, nil, fmt.Errorf("redisbarrier: run %v: %w", s, err)
	}
	return verdict(s, answer)
}

// verdict reads what the script answers: a word, and what belongs to it.
func verdict(s barrier.Step, answer []any) (barrier.Verdict, any, error) {
	var word, result any
	if len(answer) > 0 {
		word = answer[0]
	}
	if len(answer) > 1 {
		result = answer[1]
	}
	message := s.Op == barrier.Message
	switch word {
	case "proceed":
		return barrier.Proceed, result, nil
	case "empty":
		return barrier.Empty, nil, nil
	case "repeat":
		if message {
			return barrier.Repeat, nil, barrier.ErrDuplicated
		}
		return barrier.Repeat, nil, nil
	case "late":
		if message {
			return barrier.Late, nil, barrier.ErrRuledOut
		}
		return barrier.Late, nil, nil
	case "refused":
		return 0, nil, fmt.Errorf("%w: %v: %v", ErrRefused, s, result)
	}
	return 0, nil, fmt.Errorf("redisbarrier: run %v: the script answers %v", s, answer)
}

// adjust adds first and looks then: Redis's integers are exact, Lua's are not. INCRBY
// fails, with nothing changed, if the value is no integer or would not fit.
var adjust = NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then return false, 'there is no such key' end
if redis.call('INCRBY', KEYS[1], ARGV[1]) < 0 then
	redis.call('INCRBY', KEYS[1], ARGV[2])
	return false, 'there is not enough'
end
`)

// Adjust adds amount, which may be negative, to the integer at key, as the step's
// business. It is refused if the key does not exist, or if the sum would be negative.
func (b *Barrier) Adjust(ctx context.Context, s barrier.Step, key string, amount int64) (barrier.Verdict, error) {
	switch {
	case key == "":
		return 0, fmt.Errorf("%w: key is empty", barrier.ErrInvalid)
	case amount == math.MinInt64: // it has no opposite
		return 0, fmt.Errorf("%w: amount %d", barrier.ErrInvalid, amount)
	}
	v, _, err := b.Run(ctx, s, adjust, []string{key}, strconv.FormatInt(amount, 10), strconv.FormatInt(-amount, 10))
	return v, err
}

var query = redis.NewScript(`
local found = redis.call('GET', KEYS[1])
if not found then
	redis.call('SET', KEYS[1], 'rollback', 'EX', ARGV[1])
	found = 'rollback'
end
return found
`)

// QueryPrepared answers whether the local transaction of a message was done, and if not
// makes sure that it never will be; see [barrier.Table.QueryPrepared].
func (b *Barrier) QueryPrepared(ctx context.Context, s barrier.Step) (committed bool, err error) {
	if b == nil || b.client == nil {
		return false, fmt.Errorf("%w: barrier is nil", barrier.ErrInvalid)
	}
	s, err = barrier.ForMessage(s.GID)
	if err != nil {
		return false, err
	}
	key, _, err := s.Key()
	if err != nil {
		return false, err
	}
	found, err := query.Run(ctx, b.client, []string{key}, b.expiry).Text()
	if err != nil {
		return false, fmt.Errorf("redisbarrier: query %v: %w", s, err)
	}
	return found != "rollback", nil
}
