package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// take asks for n decisions and says whether they were given.
func take(t *testing.T, l *limiter, at time.Time, tenant, caller string, n int) bool {
	t.Helper()
	err := l.allow(at, tenant, caller, n)
	if err != nil && vocab.ReasonOf(err) != vocab.ReasonRateLimited {
		t.Fatalf("error %v, want RATE_LIMITED", err)
	}
	return err == nil
}

func TestLimiterBoundsOneCaller(t *testing.T) {
	l := newLimiter(10, 1_000_000)
	if !take(t, l, noon, "contoso", "alice", maxBatch) || !take(t, l, noon, "contoso", "alice", burst-maxBatch) {
		t.Fatal("a batch that comes alone was refused")
	}
	if take(t, l, noon, "contoso", "alice", 1) {
		t.Error("a caller got more than its burst")
	}
	if !take(t, l, noon, "contoso", "bob", 1) {
		t.Error("another caller pays for it")
	}
	if !take(t, l, noon, "fabrikam", "alice", 1) {
		t.Error("the same caller in another tenant pays for it")
	}
	if !take(t, l, noon.Add(time.Second), "contoso", "alice", 10) {
		t.Error("a second later ten more were refused")
	}
	if take(t, l, noon.Add(time.Second), "contoso", "alice", 1) {
		t.Error("a second later more than ten were given")
	}
}

func TestLimiterBoundsOneTenant(t *testing.T) {
	l := newLimiter(1_000_000, 10)
	for i := range burst {
		if !take(t, l, noon, "contoso", fmt.Sprint("caller", i), 1) {
			t.Fatalf("decision %d was refused, the tenant may have %d at once", i, burst)
		}
	}
	if take(t, l, noon, "contoso", "one more", 1) {
		t.Error("a tenant got more than its burst")
	}
	if !take(t, l, noon, "fabrikam", "one more", 1) {
		t.Error("another tenant pays for it")
	}
}

// A caller over its own limit takes nothing from the tenant's other callers.
func TestLimiterChargesTheTenantLast(t *testing.T) {
	l := newLimiter(10, 10)
	take(t, l, noon, "contoso", "mallory", burst-1)
	for range 100 {
		if take(t, l, noon, "contoso", "mallory", 2) {
			t.Fatal("mallory got more than the burst")
		}
	}
	if !take(t, l, noon, "contoso", "alice", 1) {
		t.Error("what mallory was refused was charged to the tenant")
	}
}

// Callers who have not signed in are counted apart from every tenant.
func TestLimiterCountsStrangersApart(t *testing.T) {
	if vocab.ValidSlug(nobodysTenant) {
		t.Errorf("%q could be a tenant's name: strangers would use up its decisions", nobodysTenant)
	}
}

func TestLimiterForgetsWhoIsQuiet(t *testing.T) {
	l := newLimiter(1000, 1_000_000_000)
	for i := range 5000 {
		// A minute apart: whoever called before has a full bucket again.
		take(t, l, noon.Add(time.Duration(i)*time.Minute), "contoso", fmt.Sprint(i), 1)
	}
	if n := len(l.buckets); n > 1100 {
		t.Errorf("%d callers are remembered, nearly all of them quiet for minutes", n)
	}
}

func TestLimiterIsBounded(t *testing.T) {
	l := newLimiter(0.001, 1_000_000_000) // nobody's bucket fills again in this test
	if l.bound != maxBuckets {
		t.Errorf("the bound is %d, want %d", l.bound, maxBuckets)
	}
	l.bound = 5000
	for i := range 3 * l.bound {
		take(t, l, noon, "contoso", fmt.Sprint(i), 1)
		if n := len(l.buckets); n > l.bound+l.bound/5 {
			t.Fatalf("%d callers are remembered, %d is the bound", n, l.bound)
		}
	}
}

// chanListener hands out the connections it is given.
type chanListener struct {
	net.Listener
	conns chan net.Conn
}

func (l chanListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// addressed is a connection from an address.
type addressed struct {
	net.Conn
	from net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.from }

func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	inner := chanListener{conns: make(chan net.Conn, 10)}
	l := LimitConnections(inner, 2)
	dial := func(ip string, port int) net.Conn {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
		inner.conns <- addressed{theirs, &net.TCPAddr{IP: net.ParseIP(ip), Port: port}}
		return ours
	}
	accept := func(port int) net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.RemoteAddr().(*net.TCPAddr).Port; got != port { //nolint:forcetypeassert // made above
			t.Fatalf("accepted the connection from port %d, want %d", got, port)
		}
		return c
	}
	dial("192.0.2.1", 1)
	first := accept(1)
	dial("192.0.2.1", 2)
	accept(2)
	third := dial("192.0.2.1", 3) // one too many
	dial("192.0.2.2", 4)          // another address
	accept(4)
	if _, err := third.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection that was one too many reads %v, want its end", err)
	}
	// A connection that ends makes room for one, however often it is closed.
	_ = first.Close()
	_ = first.Close()
	dial("192.0.2.1", 5)
	accept(5)
	dial("192.0.2.1", 6)
	dial("192.0.2.3", 7)
	accept(7)
	close(inner.conns)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v, want the listener's", err)
	}
}

// Whoever has one IPv6 address of a network has all of them.
func TestWhatCountsAsOneNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:5":              "192.0.2.1",
		"192.0.2.2:5":              "192.0.2.2",
		"[::ffff:192.0.2.1]:5":     "192.0.2.1",
		"[2001:db8:1:2::1]:5":      "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::9]:6": "2001:db8:1:2::/64",
		"[2001:db8:1:3::1]:5":      "2001:db8:1:3::/64",
		"[fe80::1%lo]:5":           "fe80::/64",
		"@":                        "",
		"pipe":                     "",
	} {
		if got := networkOf(text(address)); got != want {
			t.Errorf("%s counts as %q, want %q", address, got, want)
		}
	}
}

// text is an address by its text.
type text string

func (text) Network() string  { return "test" }
func (a text) String() string { return string(a) }

func TestConnectionsWithoutAddressAreNotCounted(t *testing.T) {
	inner := chanListener{conns: make(chan net.Conn, 3)}
	l := LimitConnections(inner, 1)
	for range 3 {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
		inner.conns <- theirs
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
	}
}
