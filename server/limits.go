package server

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits are what clients may ask of one server. Zero fields have defaults.
type Limits struct {
	BodyMax        int64         // bytes of an HTTP body or a gRPC message; 32 MiB, for payloads of 16 MiB in JSON
	HeaderMax      int           // bytes of a request's headers; 64 KiB
	HeaderTimeout  time.Duration // for a request's headers; 5 s
	ReadTimeout    time.Duration // for a whole request; 60 s
	AnswerTimeout  time.Duration // for a request and its answer, also if it waits for a result; 10 min
	IdleTimeout    time.Duration // of a connection; 2 min
	ConnectionsMax int           // on each address; 10,000
	RequestsMax    int           // of clients, under way at a time; 4,096, of which one client may have half: the others are told to come again
	StreamsMax     uint32        // of one gRPC connection; 1,000

	// RatePerSecond is how many requests a principal may make a second, or an address
	// where nobody has to say who they are; Burst is how many may come at once.
	// RatePerSecond defaults to 5,000, and to no limit if only this machine can reach
	// the server; negative: no limit. Burst defaults to RatePerSecond.
	RatePerSecond float64
	Burst         int

	// OpenMax is how many transactions of one principal may be open; 100,000. It counts
	// only those of principals with the role of a client.
	OpenMax int
}

func (l *Limits) setDefaults(onlyHere bool) {
	setDefault(&l.BodyMax, 32<<20)
	setDefault(&l.HeaderMax, 64<<10)
	setDefault(&l.HeaderTimeout, 5*time.Second)
	setDefault(&l.ReadTimeout, time.Minute)
	setDefault(&l.AnswerTimeout, 10*time.Minute)
	setDefault(&l.IdleTimeout, 2*time.Minute)
	setDefault(&l.ConnectionsMax, 10_000)
	setDefault(&l.RequestsMax, 4096)
	setDefault(&l.StreamsMax, 1000)
	setDefault(&l.OpenMax, 100_000)
	if l.RatePerSecond == 0 {
		l.RatePerSecond = 5000
		if onlyHere {
			l.RatePerSecond = -1
		}
	}
	setDefault(&l.Burst, max(1, int(l.RatePerSecond)))
}

// rates limits how fast each principal or address may ask. It forgets those that have
// been quiet for long enough to have their whole burst again.
type rates struct {
	limit rate.Limit
	burst int
	now   func() time.Time

	mu    sync.Mutex
	each  map[string]*rate.Limiter
	swept time.Time
}

// ratesMax is how many principals and addresses are told apart. Beyond, those that are
// new share one rate, until others are quiet.
const ratesMax = 10_000

func newRates(l Limits, now func() time.Time) *rates {
	if l.RatePerSecond < 0 {
		return nil
	}
	return &rates{limit: rate.Limit(l.RatePerSecond), burst: l.Burst, now: now, each: make(map[string]*rate.Limiter)}
}

// allow takes one request off what is left to who. A nil *rates allows everything.
func (r *rates) allow(who string) bool {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	l := r.each[who]
	if l == nil && len(r.each) >= ratesMax {
		r.sweepLocked(now)
		if len(r.each) >= ratesMax {
			who = ""
			l = r.each[who]
		}
	}
	if l == nil {
		l = rate.NewLimiter(r.limit, r.burst)
		r.each[who] = l
	}
	return l.AllowN(now, 1)
}

func (r *rates) sweepLocked(now time.Time) {
	if now.Sub(r.swept) < time.Second { // it looks at all of them
		return
	}
	r.swept = now
	for who, l := range r.each {
		if l.TokensAt(now) >= float64(r.burst) {
			delete(r.each, who)
		}
	}
}
