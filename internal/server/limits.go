package server

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/openrms/rms/internal/vocab"
)

// limiter bounds how many decisions callers may ask for, each caller by
// itself and each tenant as a whole. It is safe for concurrent use.
type limiter struct {
	perCaller, perTenant float64
	bound                int // on buckets
	mu                   sync.Mutex
	buckets              map[string]*rate.Limiter
	sweepAt              int
}

// maxBuckets bounds the memory of a limiter. Full buckets remember nothing and
// are dropped now and then; beyond the bound any are, and whoever had one
// starts with a full one again.
const maxBuckets = 100_000

// nobodysTenant is what callers who have not signed in are counted under,
// instead of a tenant. It is no tenant's name.
const nobodysTenant = "*"

func newLimiter(perCaller, perTenant float64) *limiter {
	return &limiter{perCaller: perCaller, perTenant: perTenant, bound: maxBuckets, buckets: map[string]*rate.Limiter{}, sweepAt: 1024}
}

// allow takes n decisions of a caller, identified by its principal ID, or
// refuses them all.
func (l *limiter) allow(now time.Time, tenant, caller string, n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buckets) > l.sweepAt {
		l.sweep(now)
	}
	// The tenant's bucket is asked second, so that a caller over its own
	// limit takes nothing from the others.
	if !l.bucket("c|"+tenant+"|"+caller, l.perCaller).AllowN(now, n) {
		return vocab.Errorf(vocab.ReasonRateLimited, "you ask for more than %g decisions a second", l.perCaller).WithNext("Slow down and try again")
	}
	if !l.bucket("t|"+tenant, l.perTenant).AllowN(now, n) {
		return vocab.Errorf(vocab.ReasonRateLimited, "the tenant asks for more than %g decisions a second", l.perTenant).WithNext("Slow down and try again")
	}
	return nil
}

// burst lets a whole batch through at once, if it comes alone.
const burst = 2 * maxBatch

func (l *limiter) bucket(key string, perSecond float64) *rate.Limiter {
	b := l.buckets[key]
	if b == nil {
		b = rate.NewLimiter(rate.Limit(perSecond), max(burst, int(perSecond)))
		l.buckets[key] = b
	}
	return b
}

func (l *limiter) sweep(now time.Time) {
	for k, b := range l.buckets {
		if b.TokensAt(now) >= float64(b.Burst()) || len(l.buckets) > l.bound {
			delete(l.buckets, k)
		}
	}
	l.sweepAt = max(1024, min(2*len(l.buckets), l.bound+l.bound/10))
}

// networkOf is what the limits for callers who are not known take for one
// caller: an IPv4 address, or the /64 an IPv6 address is in, because whoever
// has one address of it has all of them (RFC 4291 §2.5.4). It is empty for what
// has no address.
func networkOf(a net.Addr) string {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return ""
	}
	ip := at.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	subnet, _ := ip.Prefix(64) // of an IPv6 address there always is one
	return subnet.String()
}

// LimitConnections returns a listener that holds at most n connections of one
// address (of one /64 for IPv6) at a time; more are closed at once. Before
// anyone is authenticated the address is all there is to go by.
func LimitConnections(inner net.Listener, n int) net.Listener {
	return &connLimiter{Listener: inner, max: n, open: map[string]int{}}
}

type connLimiter struct {
	net.Listener
	max  int
	mu   sync.Mutex
	open map[string]int
}

func (l *connLimiter) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		if err != nil {
			return c, nil //nolint:nilerr // a socket without addresses is not limited
		}
		l.mu.Lock()
		full := l.open[host] >= l.max
		if !full {
			l.open[host]++
		}
		l.mu.Unlock()
		if full {
			_ = c.Close()
			continue
		}
		return &limitedConn{Conn: c, release: sync.OnceFunc(func() { l.release(host) })}, nil
	}
}

func (l *connLimiter) release(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[host]--; l.open[host] <= 0 {
		delete(l.open, host)
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	c.release()
	return c.Conn.Close()
}
