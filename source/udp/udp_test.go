package udp

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"noroshi/event"
)

var be = binary.BigEndian

// v5 returns a NetFlow v5 datagram with n records from 10.0.0.0/24, sequence
// number seq.
func v5(n int, seq uint32) []byte {
	p := make([]byte, 24+48*n)
	be.PutUint16(p, 5)
	be.PutUint16(p[2:], uint16(n))
	be.PutUint32(p[4:], 1e6)
	be.PutUint32(p[8:], uint32(time.Now().Unix()))
	be.PutUint32(p[16:], seq)
	for i := range n {
		r := p[24+48*i:]
		copy(r, []byte{10, 0, 0, byte(i)})
		copy(r[4:], []byte{192, 0, 2, 1})
		be.PutUint32(r[16:], 1)
		be.PutUint32(r[20:], 64)
		be.PutUint32(r[24:], 999_000)
		be.PutUint32(r[28:], 999_500)
		r[38] = event.UDP
	}
	return p
}

// ipfix returns an IPFIX message with one set: template 256 of the two IPv4
// addresses when id is 2, else data of that template.
func ipfix(id uint16, body ...byte) []byte {
	p := be.AppendUint16(nil, 10)
	p = be.AppendUint16(p, uint16(20+len(body)))
	p = be.AppendUint32(p, uint32(time.Now().Unix()))
	p = append(p, make([]byte, 8)...)
	p = be.AppendUint16(p, id)
	p = be.AppendUint16(p, uint16(4+len(body)))
	return append(p, body...)
}

var (
	template = ipfix(2, 1, 0, 0, 2, 0, 8, 0, 4, 0, 12, 0, 4)
	data     = ipfix(256, 10, 0, 0, 1, 192, 0, 2, 1)
)

// running is a Listener at work and what it emitted.
type running struct {
	*Listener
	t    *testing.T
	stop func()

	mu    sync.Mutex
	flows []event.Flow
	hold  chan struct{} // closed: emit goes on
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	l, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Listener: l, t: t, hold: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- l.Run(ctx, func(b *event.Batch) {
			<-r.hold
			r.mu.Lock()
			r.flows = append(r.flows, b.Flows...)
			r.mu.Unlock()
			b.Release()
		})
	}()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

func (r *running) got() []event.Flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]event.Flow(nil), r.flows...)
}

// count returns the sum of a counter; reason "" is any.
func (r *running) count(name, reason string) (n uint64) {
	for c := range r.Counts() {
		if c.Name == name && (reason == "" || c.Reason == reason) {
			n += c.Value
		}
	}
	return n
}

// until waits for what must come, and fails when it does not within a time
// that no working machine needs.
func (r *running) until(what string, f func() bool) {
	r.t.Helper()
	for range 2000 {
		if f() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.t.Fatalf("waited for %s in vain", what)
}

func dial(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c *net.UDPConn, p []byte) {
	t.Helper()
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
}

func TestReceive(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			r := start(t, Config{Addresses: []string{addr}})
			close(r.hold)
			c := dial(t, r.Addrs()[0])
			send(t, c, v5(30, 0))
			send(t, c, []byte("not an export"))
			send(t, c, v5(2, 30))
			r.until("32 flows", func() bool { return len(r.got()) == 32 })
			r.until("counters", func() bool { return r.count("received", "") == 3 && r.count("refused", "unknown protocol") == 1 })
			f := r.got()[0]
			if want := event.AddrOf(r.Addrs()[0].Addr()); f.Exporter != want || f.Seen == 0 {
				t.Errorf("exporter %v seen %v", f.Exporter, f.Seen)
			}
		})
	}
}

// Whatever is sent is decoded or in a counter that says why not, and each
// exporter's datagrams stay in order, however many sockets share the address. The
// exporters have addresses of their own, as routers do.
func TestManyExporters(t *testing.T) {
	const exporters, each, flows = 50, 40, 10
	r := start(t, Config{Addresses: []string{"127.0.0.1:0"}, Sockets: 4})
	close(r.hold)
	var sending sync.WaitGroup
	for i := range exporters {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(i))}, net.UDPAddrFromAddrPort(r.Addrs()[0]))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		sending.Go(func() {
			for i := range each {
				p := v5(flows, uint32(i*flows))
				be.PutUint32(p[24+20:], uint32(i)) // the first record's octets say which it is
				_, _ = c.Write(p)
				if i%10 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	sending.Wait()
	r.until("all datagrams", func() bool {
		return r.count("received", "")+r.count("lost", "kernel buffer full") == exporters*each
	})
	r.until("their flows", func() bool { return uint64(len(r.got())) == flows*r.count("received", "") })
	if n := len(r.Addrs()); n != 4 {
		t.Errorf("%d sockets", n)
	}
	if r.count("datagrams", "reordered") != 0 || r.count("restarts", "") != 0 {
		t.Error("an exporter's datagrams were decoded out of order")
	}
	last := map[event.Addr]uint64{}
	for i, f := range r.got() {
		if f.Src.Four()&0xff != 0 {
			continue // not the first record of a datagram
		}
		if before, ok := last[f.Exporter]; ok && f.Bytes <= before {
			t.Fatalf("flow %d of %v: datagram %d after %d", i, f.Exporter, f.Bytes, before)
		}
		last[f.Exporter] = f.Bytes
	}
	if len(last) != exporters {
		t.Errorf("%d exporters were told apart", len(last))
	}
	owners := map[event.Addr]int{}
	for _, s := range r.sockets {
		own := map[event.Addr]bool{}
		for c := range s.decoder.Counts() {
			if c.Exporter != (event.Addr{}) {
				own[c.Exporter] = true
			}
		}
		for a := range own {
			owners[a]++
		}
		if len(own) == 0 {
			t.Error("a socket has no exporter")
		}
	}
	for a, n := range owners {
		if n != 1 {
			t.Errorf("%v has %d owners", a, n)
		}
	}
}

// While nobody reads, the kernel's buffer overflows, and every datagram is in a
// counter: at once, also when none comes after, and when the socket is closed.
func TestKernelDrops(t *testing.T) {
	r := start(t, Config{Addresses: []string{"127.0.0.1:0"}, Buffer: 4096})
	c := dial(t, r.Addrs()[0])
	const sent = 2000
	for i := range sent {
		send(t, c, v5(30, uint32(30*i)))
	}
	if r.count("lost", "kernel buffer full") == 0 {
		t.Error("no loss is known yet")
	}
	close(r.hold)
	r.until("every datagram in a counter", func() bool {
		return r.count("received", "")+r.count("lost", "kernel buffer full") == sent
	})
	got, lost := r.count("received", ""), r.count("lost", "kernel buffer full")
	r.stop()
	if lost == 0 || r.count("received", "") != got || r.count("lost", "kernel buffer full") != lost {
		t.Errorf("received %d, lost %d of %d; after the end %d, %d", got, lost, sent, r.count("received", ""), r.count("lost", "kernel buffer full"))
	}
	var d drops
	for _, n := range []uint32{5, 1<<32 - 1, 3, 3} {
		d.note(n)
	}
	if d.high+d.low != 1<<32+3 {
		t.Errorf("%d drops after a wrap", d.high+d.low)
	}
}

func TestAllow(t *testing.T) {
	r := start(t, Config{Addresses: []string{"127.0.0.1:0"}, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	close(r.hold)
	send(t, dial(t, r.Addrs()[0]), v5(1, 0))
	r.until("the refusal", func() bool { return r.count("refused", "exporter not allowed") == 1 })
	if len(r.got()) != 0 {
		t.Error("a stranger's flows were taken")
	}
}

func TestPortInUse(t *testing.T) {
	for _, sockets := range []int{1, 2} {
		r := start(t, Config{Addresses: []string{"127.0.0.1:0"}, Sockets: sockets})
		addr := r.Addrs()[0].String()
		for _, n := range []int{1, 2} {
			l, err := Listen(Config{Addresses: []string{addr}, Sockets: n})
			if err == nil {
				_ = l.Close()
				t.Fatalf("%d sockets share %s with %d of another program", n, addr, sockets)
			}
			if !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "another program has this UDP port") {
				t.Errorf("unclear: %v", err)
			}
		}
	}
}

func TestBadAddresses(t *testing.T) {
	for addr, want := range map[string]string{
		"localhost:2055": "want an address and a port",
		"127.0.0.1":      "want an address and a port",
		"192.0.2.1:2055": "does not have the address",
	} {
		l, err := Listen(Config{Addresses: []string{"127.0.0.1:0", addr}})
		if err == nil {
			_ = l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// A restarted listener decodes data whose template was sent to the one before,
// whichever socket it comes to.
func TestTemplatesSurvive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "templates")
	first := start(t, Config{Addresses: []string{"127.0.0.1:0"}, Templates: file, Sockets: 2})
	close(first.hold)
	c := dial(t, first.Addrs()[0])
	send(t, c, template)
	send(t, c, data)
	first.until("a flow", func() bool { return len(first.got()) == 1 })
	first.stop()

	// Sixteen ports of one exporter: the kernel deals them to both sockets.
	second := start(t, Config{Addresses: []string{"127.0.0.1:0"}, Templates: file, Sockets: 2})
	close(second.hold)
	for range 16 {
		send(t, dial(t, second.Addrs()[0]), data)
	}
	second.until("flows without a template", func() bool { return len(second.got()) == 16 })
}

// Ending does not wait for traffic.
func TestStop(t *testing.T) {
	r := start(t, Config{Addresses: []string{"127.0.0.1:0"}})
	close(r.hold)
	r.stop()
	if l, err := Listen(Config{Addresses: []string{r.Addrs()[0].String()}}); err != nil {
		t.Errorf("the port isn't free again: %v", err)
	} else {
		_ = l.Close()
	}
}

// Receiving and decoding allocate nothing per datagram: one is received, and then
// taken from the ring over and over.
func TestNoAllocation(t *testing.T) {
	l, err := Listen(Config{Addresses: []string{"127.0.0.1:0"}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := l.sockets[0]
	s.batch = s.pool.Get()
	c := dial(t, l.Addrs()[0])
	send(t, c, v5(10, 0))
	n := 0
	receive := func(fd uintptr) bool {
		var errno syscall.Errno
		n, errno = s.ring.receive(fd)
		return errno != unix.EAGAIN
	}
	if err := s.raw.Read(receive); err != nil || n != 1 {
		t.Fatalf("%d datagrams, %v", n, err)
	}
	emit := func(b *event.Batch) { b.Reset(); s.batch = b }
	flows := 0
	if allocs := testing.AllocsPerRun(100, func() {
		s.batch.Reset()
		s.take(n, event.Time(1e18), emit)
		flows += s.batch.Len()
	}); allocs != 0 || flows != 1010 {
		t.Errorf("taking a datagram allocates %v times; %d flows", allocs, flows)
	}
	if allocs := testing.AllocsPerRun(100, func() {
		_ = s.raw.Control(func(fd uintptr) { n, _ = s.ring.receive(fd) })
	}); allocs > 1 { // the closure
		t.Errorf("a system call allocates %v times", allocs)
	}
}

// Payloads bound a batch too: a datagram of sFlow samples brings kilobytes.
func TestTextIsBounded(t *testing.T) {
	l, err := Listen(Config{Addresses: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := l.sockets[0]
	s.batch = s.pool.Get()
	s.batch.AddText(make([]byte, maxText+1))
	s.batch.NewFlow()
	send(t, dial(t, l.Addrs()[0]), v5(1, 0))
	n := 0
	if err := s.raw.Read(func(fd uintptr) bool { n, _ = s.ring.receive(fd); return n > 0 }); err != nil {
		t.Fatal(err)
	}
	emitted := 0
	s.take(n, event.Time(1e18), func(b *event.Batch) { emitted += b.Len(); b.Release() })
	if emitted != 2 {
		t.Errorf("%d flows handed on, want 2", emitted)
	}
}
