// Package udp receives what routers export. It is the one place where a slow
// reader loses data for good, so it does little: it takes many datagrams with
// one system call, decodes them where they lie, and hands on whole batches.
//
// One goroutine owns a socket and the decoder behind it. With several sockets
// on one address (SO_REUSEPORT) the kernel deals datagrams by a hash of both
// addresses and ports, so an exporter stays with one owner and its datagrams in
// order.
package udp

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gaissmai/bart"
	"golang.org/x/sys/unix"

	"noroshi/event"
	"noroshi/source"
	"noroshi/source/export"
)

// Config says where to listen and to whom. The zero value of each field but
// Addresses is the default.
type Config struct {
	// Addresses are host:port of IPv4 or [IPv6]; port 0 takes a free one.
	Addresses []string
	// Sockets is how many sockets, each with a goroutine, share an address;
	// default 1, which decodes several million flows a second.
	Sockets int
	// Buffer is the kernel's receive buffer asked for each socket, in bytes;
	// default 64 MiB: half a second of the heaviest load. The kernel may give
	// less (net.core.rmem_max), which is logged.
	Buffer int
	// Allow lists the exporters that are listened to; empty means all.
	Allow []netip.Prefix
	// Export is for the decoders.
	Export export.Config
	// Templates is the file in which templates are kept over a restart; empty
	// means they aren't.
	Templates string
}

// keepEvery is how often templates are written to their file.
const keepEvery = time.Minute

// Listener is the source. Make one with Listen.
type Listener struct {
	cfg     Config
	sockets []*socket
	allow   *bart.Lite // nil = all
}

// Listen binds the sockets. Until Run, datagrams wait in their buffers.
func Listen(cfg Config) (*Listener, error) {
	if cfg.Sockets == 0 {
		cfg.Sockets = 1
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = 64 << 20
	}
	l := &Listener{cfg: cfg}
	if len(cfg.Allow) > 0 {
		l.allow = new(bart.Lite)
		for _, p := range cfg.Allow {
			l.allow.Insert(p)
		}
	}
	for _, addr := range cfg.Addresses {
		if err := l.bind(addr); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

// bind opens the sockets of one address. The first is opened without sharing,
// because sharing would let two programs of one user split an address between
// them unnoticed.
func (l *Listener) bind(addr string) error {
	shared := l.cfg.Sockets > 1
	if shared {
		probe, err := listen(addr, false)
		if err != nil {
			return err
		}
		addr = probe.LocalAddr().String() // a port of its own for :0
		_ = probe.Close()
	}
	for range l.cfg.Sockets {
		conn, err := listen(addr, shared)
		if err != nil {
			return err
		}
		s, err := newSocket(conn, l.cfg)
		if err != nil {
			return errors.Join(err, conn.Close())
		}
		s.listener, s.index = l, len(l.sockets)
		l.sockets = append(l.sockets, s)
	}
	return nil
}

func listen(addr string, shared bool) (*net.UDPConn, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen %q: want an address and a port, such as 127.0.0.1:2055 or [::1]:2055", addr)
	}
	network := "udp4"
	if ap.Addr().Is6() {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) {
			if shared {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
		})
		return errors.Join(cerr, err)
	}}
	pc, err := lc.ListenPacket(context.Background(), network, addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen %s: another program has this UDP port (ss -ulpn shows which); stop it or listen elsewhere", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen %s: this machine does not have the address", addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen %s: ports below 1024 need CAP_NET_BIND_SERVICE", addr)
	case err != nil:
		return nil, fmt.Errorf("listen %s: %w", addr, err)
	}
	return pc.(*net.UDPConn), nil
}

// Addrs returns the addresses bound, one for each socket.
func (l *Listener) Addrs() []netip.AddrPort {
	var list []netip.AddrPort
	for _, s := range l.sockets {
		list = append(list, s.conn.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return list
}

// Close releases the sockets of a Listener that is not run.
func (l *Listener) Close() error {
	var errs []error
	for _, s := range l.sockets {
		s.dropped.ask(s.raw) // the last that can be known
		errs = append(errs, s.conn.Close())
	}
	return errors.Join(errs...)
}

// templatesFile is where socket i keeps its templates.
func (l *Listener) templatesFile(i int) string {
	if i == 0 {
		return l.cfg.Templates
	}
	return fmt.Sprintf("%s.%d", l.cfg.Templates, i)
}

// Run receives until ctx ends.
func (l *Listener) Run(ctx context.Context, emit func(*event.Batch)) error {
	defer l.Close()
	if l.cfg.Templates != "" {
		// The kernel may deal an exporter to another socket than before, so
		// each takes up what any of them knew.
		for _, s := range l.sockets {
			for i := range l.sockets {
				if err := s.decoder.LoadFile(l.templatesFile(i)); err != nil {
					slog.Warn("kept templates are damaged; exporters will send them again", "error", err)
				}
			}
		}
	}
	stop := context.AfterFunc(ctx, func() { // wakes those that wait; ctx is over before they look
		for _, s := range l.sockets {
			_ = s.conn.SetReadDeadline(time.Now())
		}
	})
	defer stop()
	errs := make(chan error, len(l.sockets))
	for _, s := range l.sockets {
		go func() { errs <- s.run(ctx, emit) }()
	}
	var all []error
	for range l.sockets {
		err := <-errs
		if err != nil { // one deaf socket would go unnoticed beside the others
			_ = l.Close()
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

// Counts returns the counters of the sockets and their decoders.
func (l *Listener) Counts() iter.Seq[source.Count] {
	return func(yield func(source.Count) bool) {
		for _, s := range l.sockets {
			own := []source.Count{
				{Name: "received", Value: s.datagrams.Load()},
				{Name: "octets", Value: s.octets.Load()},
				{Name: "lost", Reason: "kernel buffer full", Value: s.dropped.ask(s.raw)},
				{Name: "refused", Reason: "exporter not allowed", Value: s.strangers.Load()},
			}
			for _, c := range own {
				if !yield(c) {
					return
				}
			}
			for c := range s.decoder.Counts() {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// socket is one socket with its owner's state.
type socket struct {
	listener *Listener
	index    int
	conn     *net.UDPConn
	raw      syscall.RawConn
	decoder  *export.Decoder
	ring     *ring
	pool     event.Pool
	batch    *event.Batch
	kept     time.Time // when templates were last written

	datagrams, octets, strangers atomic.Uint64
	dropped                      drops
}

func newSocket(conn *net.UDPConn, cfg Config) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, raw: raw, decoder: export.NewDecoder(cfg.Export), ring: newRing(), kept: time.Now()}
	got := 0
	cerr := raw.Control(func(fd uintptr) {
		// FORCE passes net.core.rmem_max, for those who may (CAP_NET_ADMIN).
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, cfg.Buffer) != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, cfg.Buffer)
		}
		if err == nil {
			got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		}
	})
	if err := errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("listen %s: receive buffer: %w", conn.LocalAddr(), err)
	}
	if got /= 2; got < cfg.Buffer { // the kernel doubles it for its own use
		slog.Warn("the kernel gave a smaller receive buffer; raise net.core.rmem_max or bursts may be lost",
			"listen", conn.LocalAddr().String(), "asked", cfg.Buffer, "got", got)
	}
	return s, nil
}

// run receives until ctx ends. A batch is handed on when it is full, and when
// the socket has run dry: nothing waits while there is nothing to wait for.
func (s *socket) run(ctx context.Context, emit func(*event.Batch)) error {
	s.batch = s.pool.Get()
	defer s.keep(true)
	defer func() { s.flush(emit) }()
	var n int
	var errno syscall.Errno
	receive := func(fd uintptr) bool {
		if n, errno = s.ring.receive(fd); errno == unix.EAGAIN {
			s.flush(emit)
			return false
		}
		return true
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(keepEvery))
	for ctx.Err() == nil {
		err := s.raw.Read(receive)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // a quiet minute
			s.keep(false)
			_ = s.conn.SetReadDeadline(time.Now().Add(keepEvery))
			continue
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("udp: %w", err)
		case errno == unix.EINTR || errno == unix.ECONNREFUSED:
			continue
		case errno != 0:
			return fmt.Errorf("udp %s: receive: %w", s.conn.LocalAddr(), errno)
		}
		s.take(n, event.TimeOf(time.Now()), emit)
		s.keep(false)
	}
	s.drain(emit)
	return nil
}

// drain takes what had arrived when the end was asked for, as far as it can be
// read within a second.
func (s *socket) drain(emit func(*event.Batch)) {
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		n, errno := 0, syscall.Errno(0)
		err := s.raw.Control(func(fd uintptr) { n, errno = s.ring.receive(fd) })
		if err != nil || errno != 0 && errno != unix.EINTR || n == 0 && errno == 0 {
			return
		}
		s.take(n, event.TimeOf(time.Now()), emit)
	}
}

// take decodes the n datagrams in the ring, all received by now.
func (s *socket) take(n int, now event.Time, emit func(*event.Batch)) {
	octets := 0
	for i := range n {
		p := s.ring.datagram(i)
		octets += len(p)
		from := s.ring.from(i)
		if s.listener.allow != nil && !s.listener.allow.Contains(from.Std()) {
			s.strangers.Add(1)
		} else {
			_, _ = s.decoder.Decode(p, from, now, s.batch) // the decoder counts what it refuses
		}
		if s.batch.Len() >= event.BatchSize || s.batch.TextLen() > maxText {
			s.flush(emit)
		}
	}
	s.datagrams.Add(uint64(n))
	s.octets.Add(uint64(octets))
}

// maxText bounds the payload text of a batch.
const maxText = 1 << 20

func (s *socket) flush(emit func(*event.Batch)) {
	if s.batch.Len() > 0 {
		emit(s.batch)
		s.batch = s.pool.Get()
	}
}

// keep writes the templates to their file, now or if it is time.
func (s *socket) keep(now bool) {
	if s.listener.cfg.Templates == "" || !now && time.Since(s.kept) < keepEvery {
		return
	}
	s.kept = time.Now()
	if err := s.decoder.SaveFile(s.listener.templatesFile(s.index)); err != nil {
		slog.Warn("after a restart exporters must send their templates again", "error", err)
	}
}
