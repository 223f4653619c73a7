package packet

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"noroshi/event"
	"noroshi/source"
)

// LiveConfig says what to listen to.
type LiveConfig struct {
	Interface string
	// Promiscuous also takes frames addressed to other machines, as a mirror
	// port sends them.
	Promiscuous bool
	// Fanout, when above 1, is how many rings share the interface's packets by
	// flow, each with a goroutine. 0 means 1.
	Fanout int
	// Buffer is the ring's size in octets, for each ring; default 32 MiB.
	Buffer int
	// Keep is how many octets of payload each record takes along; default
	// event.MaxPayload, negative for none.
	Keep int
}

// Live is the source of packets on an interface of this machine, by an
// AF_PACKET ring (TPACKET_V3). Make one with OpenLive.
type Live struct {
	cfg   LiveConfig
	link  LinkType
	loops bool // the loopback interface, on which each packet is seen twice
	rings []*liveRing
	mu    sync.Mutex // a ring may be closed while Counts asks it

	packets, dropped atomic.Uint64
	why              [NumReasons]atomic.Uint64
}

const (
	blockSize = 1 << 20
	frameSize = 2048
	// retire is how long a packet may wait in a block, in milliseconds.
	retire = 50
)

// OpenLive opens the interface. It needs CAP_NET_RAW.
func OpenLive(cfg LiveConfig) (*Live, error) {
	if cfg.Fanout < 1 {
		cfg.Fanout = 1
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = 32 << 20
	}
	if cfg.Keep == 0 {
		cfg.Keep = event.MaxPayload
	}
	i, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		var names []string
		all, _ := net.Interfaces()
		for _, i := range all {
			names = append(names, i.Name)
		}
		return nil, fmt.Errorf("capture: there is no interface %q; there are %s", cfg.Interface, strings.Join(names, ", "))
	}
	l := &Live{cfg: cfg, loops: i.Flags&net.FlagLoopback != 0}
	if l.link, err = linkOf(cfg.Interface); err != nil {
		return nil, err
	}
	for range cfg.Fanout {
		r, err := openRing(i.Index, cfg)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			err = errors.New("not permitted; run as root, or give the program the right: setcap cap_net_raw+ep noroshi")
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("capture %s: %w", cfg.Interface, err), l.Close())
		}
		l.rings = append(l.rings, r)
	}
	return l, nil
}

// linkOf asks the kernel for the interface's ARPHRD type.
func linkOf(name string) (LinkType, error) {
	text, err := os.ReadFile("/sys/class/net/" + name + "/type")
	if err != nil {
		return 0, fmt.Errorf("capture %s: %w", name, err)
	}
	switch t := strings.TrimSpace(string(text)); t {
	case "1", "772": // ARPHRD_ETHER, ARPHRD_LOOPBACK
		return Ethernet, nil
	case "512", "65534", "768", "769", "776", "778": // PPP (the kernel strips its header), none, tunnels of IP in IP, GRE
		return Raw, nil
	default:
		return 0, fmt.Errorf("capture %s: interfaces of type %s aren't supported", name, t)
	}
}

// liveRing is one socket with its memory.
type liveRing struct {
	fd     int
	mem    []byte
	blocks int
}

func openRing(index int, cfg LiveConfig) (_ *liveRing, err error) {
	// Bound to no protocol at first, so that nothing arrives before the ring is
	// ready.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	r := &liveRing{fd: fd, blocks: max(cfg.Buffer/blockSize, 2)}
	defer func() {
		if err != nil {
			_ = r.close()
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, fmt.Errorf("TPACKET_V3: %w", err)
	}
	req := unix.TpacketReq3{
		Block_size: blockSize, Block_nr: uint32(r.blocks),
		Frame_size: frameSize, Frame_nr: uint32(r.blocks * blockSize / frameSize),
		Retire_blk_tov: retire,
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("ring of %d octets: %w", r.blocks*blockSize, err)
	}
	if r.mem, err = unix.Mmap(fd, 0, r.blocks*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	if cfg.Promiscuous {
		m := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return nil, fmt.Errorf("promiscuous: %w", err)
		}
	}
	all := uint16(unix.ETH_P_ALL)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: index}); err != nil {
		return nil, err
	}
	if cfg.Fanout > 1 {
		group := os.Getpid() & 0xffff
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, unix.PACKET_FANOUT_HASH<<16|group); err != nil {
			return nil, fmt.Errorf("fanout: %w", err)
		}
	}
	return r, nil
}

func (r *liveRing) close() error {
	if r.fd < 0 {
		return nil
	}
	var err error
	if r.mem != nil {
		err = unix.Munmap(r.mem)
	}
	err = errors.Join(err, unix.Close(r.fd))
	r.fd, r.mem = -1, nil
	return err
}

// Close releases a Live that is not run.
func (l *Live) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, r := range l.rings {
		errs = append(errs, r.close())
	}
	return errors.Join(errs...)
}

// Run captures until ctx ends.
func (l *Live) Run(ctx context.Context, emit func(*event.Batch)) error {
	errs := make(chan error, len(l.rings))
	for _, r := range l.rings {
		go func() { errs <- l.run(ctx, r, emit) }()
	}
	var all []error
	for range l.rings {
		all = append(all, <-errs)
	}
	l.drops() // the last before the sockets close
	return errors.Join(append(all, l.Close())...)
}

func (l *Live) run(ctx context.Context, r *liveRing, emit func(*event.Batch)) error {
	var pool event.Pool
	b := pool.Get()
	flush := func() {
		if b.Len() > 0 {
			emit(b)
			b = pool.Get()
		}
	}
	defer flush()
	for i := 0; ctx.Err() == nil; {
		block := r.mem[i*blockSize : (i+1)*blockSize]
		// struct tpacket_block_desc: version, offset, then tpacket_hdr_v1.
		h := (*unix.TpacketHdrV1)(unsafe.Pointer(&block[8]))
		status := (*uint32)(unsafe.Pointer(&h.Block_status))
		if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
			flush()
			fds := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN | unix.POLLERR}}
			if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("capture %s: %w", l.cfg.Interface, err)
			}
			if fds[0].Revents&unix.POLLERR != 0 {
				return fmt.Errorf("capture %s: the interface went down", l.cfg.Interface)
			}
			continue
		}
		at := int(h.Offset_to_first_pkt)
		for range h.Num_pkts {
			at += l.frame(block, at, b)
			if b.Len() >= event.BatchSize || b.TextLen() > 1<<20 {
				flush()
			}
		}
		atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
		i = (i + 1) % r.blocks
	}
	runtime.KeepAlive(r)
	return nil
}

// frame decodes the frame at an offset of a block and returns how far the next
// one is. The memory is the kernel's: its numbers are right.
func (l *Live) frame(block []byte, at int, b *event.Batch) int {
	h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[at]))
	sll := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&block[at+(unix.SizeofTpacket3Hdr+15)&^15]))
	if !l.loops || sll.Pkttype != unix.PACKET_OUTGOING {
		data := block[at+int(h.Mac):]
		p := Packet{
			Time: event.Time(int64(h.Sec)*int64(time.Second) + int64(h.Nsec)),
			Link: l.link, Data: data[:h.Snaplen], Wire: int(h.Len),
		}
		l.packets.Add(1)
		if res := Decode(&p, max(l.cfg.Keep, 0), b); res.Reason != None {
			l.why[res.Reason].Add(1)
		}
	}
	return int(h.Next_offset)
}

// drops asks the kernel what it dropped since it was last asked.
func (l *Live) drops() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rings {
		if r.fd < 0 {
			continue
		}
		if s, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			l.dropped.Add(uint64(s.Drops))
		}
	}
}

// Counts returns the counters.
func (l *Live) Counts() iter.Seq[source.Count] {
	return func(yield func(source.Count) bool) {
		l.drops()
		if !yield(source.Count{Name: "packets", Value: l.packets.Load()}) ||
			!yield(source.Count{Name: "lost", Reason: "kernel ring full", Value: l.dropped.Load()}) {
			return
		}
		for i := range l.why {
			if n := l.why[i].Load(); n > 0 && !yield(source.Count{Name: "refused", Reason: Reason(i).String(), Value: n}) {
				return
			}
		}
	}
}
