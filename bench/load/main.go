// Command load sends IPFIX datagrams to a collector on this machine, as fast or
// as steadily as it is told, and prints what it sent: the other half of a
// measurement of what a collector can take. It makes its datagrams beforehand
// and changes only times and sequence numbers while sending, many at a time by
// sendmmsg, so that one core can send several million flows a second.
//
//	go run ./bench/load -rate 1500000 -for 10s -hosts 131072
//
// It refuses destinations that aren't loopback and stops after ten minutes.
// bench/collectors.sh compares collectors with it.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	perDatagram = 24   // flows of 57 bytes: 1,388 bytes of payload
	recordSize  = 57   //
	headerSize  = 16   // RFC 7011, 3.1
	setHeader   = 4    // RFC 7011, 3.3.2
	prepared    = 8192 // data datagrams made beforehand: 196,608 distinct flows
	vector      = 32   // datagrams per system call
	every       = 2048 // datagrams between templates
)

func main() {
	dst := flag.String("dst", "127.0.0.1:4739", "collector; must be a loopback address")
	rate := flag.Float64("rate", 100_000, "flows a second; 0 is as fast as possible")
	length := flag.Duration("for", 10*time.Second, "how long, at most 10m")
	hosts := flag.Uint("hosts", 131_072, "own hosts in 10.0.0.0/8, up to 16,777,216")
	outside := flag.Uint("outside", 131_072, "hosts outside in 198.18.0.0/15, up to 131,072")
	seed := flag.Uint64("seed", 1, "seed of all chance")
	flag.Parse()
	to, err := netip.ParseAddrPort(*dst)
	switch {
	case err != nil:
	case !to.Addr().IsLoopback() || !to.Addr().Is4():
		err = fmt.Errorf("refusing %v: only IPv4 loopback addresses", to)
	case *length <= 0 || *length > 10*time.Minute:
		err = fmt.Errorf("-for %v: want more than 0 and at most 10m", *length)
	case *hosts < 1 || *hosts > 1<<24 || *outside < 1 || *outside > 1<<17:
		err = fmt.Errorf("-hosts or -outside out of range")
	default:
		err = run(to, *rate, *length, uint32(*hosts), uint32(*outside), *seed)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(to netip.AddrPort, rate float64, length time.Duration, hosts, outside uint32, seed uint64) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return err
	}
	data := prepare(hosts, outside, rand.New(rand.NewPCG(seed, 1)))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)

	s := sender{fd: fd}
	start := time.Now()
	sent := 0
	for time.Since(start) < length && len(stop) == 0 {
		if sent%every == 0 {
			if err := s.send([][]byte{templates(s.seq)}); err != nil {
				return err
			}
		}
		if rate > 0 {
			due := start.Add(time.Duration(float64(sent*perDatagram) / rate * float64(time.Second)))
			if d := time.Until(due); d > 200*time.Microsecond {
				time.Sleep(d)
			}
		}
		at := sent % prepared
		part := data[at : at+vector]
		now := time.Now()
		for _, p := range part {
			stamp(p, s.seq, now)
			s.seq += perDatagram
		}
		if err := s.send(part); err != nil {
			return err
		}
		sent += vector
	}
	took := time.Since(start).Seconds()
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"flows": sent * perDatagram, "datagrams": sent, "seconds": took, "flows_per_s": float64(sent*perDatagram) / took,
	})
}

type sender struct {
	fd  int
	seq uint32
	msg [vector]mmsghdr
	iov [vector]unix.Iovec
}

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// send sends up to vector datagrams. A refused datagram (nobody listens yet) is
// lost like any other.
func (s *sender) send(ps [][]byte) error {
	for i, p := range ps {
		s.iov[i].Base = &p[0]
		s.iov[i].SetLen(len(p))
		s.msg[i].hdr.Iov = &s.iov[i]
		s.msg[i].hdr.SetIovlen(1)
	}
	for done := 0; done < len(ps); {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msg[done])), uintptr(len(ps)-done), 0, 0, 0)
		switch errno {
		case 0:
			done += int(n)
		case syscall.ECONNREFUSED:
			done++
		case syscall.EINTR, syscall.EAGAIN, syscall.ENOBUFS:
		default:
			return errno
		}
	}
	return nil
}

var be = binary.BigEndian

// fields of the one template: information element, length (IANA ipfix registry).
var fields = [][2]uint16{{8, 4}, {12, 4}, {7, 2}, {11, 2}, {4, 1}, {5, 1}, {6, 1}, {10, 4}, {14, 4}, {1, 8}, {2, 8}, {152, 8}, {153, 8}, {9, 1}, {13, 1}}

const templateID = 256

func header(b []byte, seq uint32) []byte {
	b = be.AppendUint16(b, 10)
	b = be.AppendUint16(b, 0)
	b = be.AppendUint32(b, uint32(time.Now().Unix()))
	b = be.AppendUint32(b, seq)
	return be.AppendUint32(b, 1) // observation domain
}

// templates is a message with the template and no record.
func templates(seq uint32) []byte {
	b := header(nil, seq)
	b = be.AppendUint16(b, 2)
	b = be.AppendUint16(b, uint16(setHeader+4+4*len(fields)))
	b = be.AppendUint16(b, templateID)
	b = be.AppendUint16(b, uint16(len(fields)))
	for _, f := range fields {
		b = be.AppendUint16(be.AppendUint16(b, f[0]), f[1])
	}
	be.PutUint16(b[2:], uint16(len(b)))
	return b
}

// prepare makes data messages of ordinary flows: downloads and their requests,
// a quarter of them by a busy tenth of the hosts.
func prepare(hosts, outside uint32, r *rand.Rand) [][]byte {
	ports := []uint16{443, 443, 443, 443, 80, 53, 8080, 993, 123, 5228}
	out := make([][]byte, prepared)
	for i := range out {
		b := header(make([]byte, 0, headerSize+setHeader+perDatagram*recordSize), 0)
		b = be.AppendUint16(b, templateID)
		b = be.AppendUint16(b, setHeader+perDatagram*recordSize)
		for range perDatagram {
			n := r.Uint32N(hosts)
			if r.IntN(4) == 0 {
				n /= 10
			}
			own, other := 10<<24|n, 198<<24|18<<16|r.Uint32N(outside)
			port, ephemeral := ports[r.IntN(len(ports))], uint16(32768+r.IntN(28000))
			proto, flags := uint8(6), uint8(0x1b)
			if port == 53 || port == 123 {
				proto, flags = 17, 0
			}
			packets, size := 1+r.Uint64N(40), 60+r.Uint64N(1300)
			if r.IntN(10) < 6 {
				b = be.AppendUint32(be.AppendUint32(b, other), own)
				b = be.AppendUint16(be.AppendUint16(b, port), ephemeral)
			} else {
				b = be.AppendUint32(be.AppendUint32(b, own), other)
				b = be.AppendUint16(be.AppendUint16(b, ephemeral), port)
			}
			b = append(b, proto, 0, flags)
			b = be.AppendUint32(be.AppendUint32(b, 1+r.Uint32N(8)), 100+r.Uint32N(8))
			b = be.AppendUint64(be.AppendUint64(b, packets*size), packets)
			b = be.AppendUint64(be.AppendUint64(b, r.Uint64N(20_000)), 0) // start: so many ms before the end; see stamp
			b = append(b, 24, 24)
		}
		be.PutUint16(b[2:], uint16(len(b)))
		out[i] = b
	}
	return out
}

const (
	startAt = 39 // offsets within a record
	endAt   = 47
)

// stamp sets the sequence number and moves the times of a message to now,
// keeping each flow's duration.
func stamp(p []byte, seq uint32, now time.Time) {
	be.PutUint32(p[4:], uint32(now.Unix()))
	be.PutUint32(p[8:], seq)
	ms := uint64(now.UnixMilli())
	for at := headerSize + setHeader; at+recordSize <= len(p); at += recordSize {
		first, last := be.Uint64(p[at+startAt:]), be.Uint64(p[at+endAt:])
		length := last - first
		if last == 0 {
			length = first // not stamped yet: the duration itself
		}
		be.PutUint64(p[at+startAt:], ms-length)
		be.PutUint64(p[at+endAt:], ms)
	}
}
