package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"noroshi/event"
	"noroshi/scenario"
)

// Sender sends datagrams over UDP at their time. It sends to loopback addresses
// only, each exporter from one of its own in 127.0.1.0/24 where the system has
// these.
type Sender struct {
	conns map[*scenario.Exporter]*net.UDPConn
	sent  uint64
	burst int // datagrams sent without a pause
}

// burstMost is how many datagrams go out without a pause of a millisecond: what
// a receive buffer of the usual 208 KiB holds, twice.
const burstMost = 32

// NewSender returns a Sender for the exporters of p. to says where each
// protocol is listened to. A tap's packets can't be sent.
func NewSender(p *scenario.Provider, to map[scenario.Protocol]netip.AddrPort) (*Sender, error) {
	s := &Sender{conns: map[*scenario.Exporter]*net.UDPConn{}}
	for i := range p.Exporters {
		x := &p.Exporters[i]
		dst, known := to[x.Protocol]
		if err := s.open(x, i, dst, known); err != nil {
			return nil, errors.Join(fmt.Errorf("wire: exporter %s: %w", x.Name, err), s.Close())
		}
	}
	return s, nil
}

func (s *Sender) open(x *scenario.Exporter, i int, dst netip.AddrPort, known bool) error {
	switch {
	case x.Protocol == scenario.Packets:
		return errors.New("a tap's packets can't be sent; write a capture")
	case !known:
		return fmt.Errorf("nobody listens to %v", x.Protocol)
	case !dst.Addr().IsLoopback():
		return fmt.Errorf("refusing %v: only loopback addresses", dst)
	}
	var from *net.UDPAddr
	if dst.Addr().Is4() {
		from = &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}
	}
	conn, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(dst))
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dst))
	}
	if err == nil {
		s.conns[x] = conn
	}
	return err
}

// Send waits until the datagram's time, by the wall clock, and sends it. It
// returns the context's error when that ends first. One that nobody receives is
// lost like any other.
func (s *Sender) Send(ctx context.Context, d *Datagram) error {
	wait := time.Until(d.At.Std())
	if s.burst++; s.burst >= burstMost {
		wait = max(wait, time.Millisecond)
	}
	if wait >= time.Millisecond {
		s.burst = 0
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := s.conns[d.Exporter].Write(d.Data)
	if err == nil || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOBUFS) {
		s.sent++
		return nil
	}
	return err
}

// Sent returns the number of datagrams sent.
func (s *Sender) Sent() uint64 { return s.sent }

// Close closes the sockets.
func (s *Sender) Close() error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Play plays sc, which begins at start, and sends all its exporters send, at
// its time.
func (s *Sender) Play(ctx context.Context, sc *scenario.Scenario, seed uint64, start event.Time) (truth *scenario.Truth, err error) {
	enc := NewEncoder(sc.Provider, start.Add(-240*time.Hour))
	end := start.Add(sc.Length)
	send := func(d *Datagram) {
		if err == nil && d.At <= end { // caches are not emptied by hurry
			err = s.Send(ctx, d)
		}
	}
	truth = sc.Play(seed, start, func(b *event.Batch) bool {
		enc.Encode(b, send)
		return err == nil
	})
	enc.Flush(send)
	return truth, err
}
