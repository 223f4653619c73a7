package udp

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"noroshi/event"
)

// ringSize is how many datagrams one system call may bring: at 30 flows each,
// two batches.
const ringSize = 64

// slot is the room for one datagram: the largest there is, and a little so that
// the slots don't all begin in the same set of the processor's cache.
const slot = 1<<16 + 192

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	len uint32
	_   [4]byte
}

// ring is the memory that recvmmsg fills. Only what datagrams really touch
// becomes resident.
type ring struct {
	heads   [ringSize]mmsghdr
	vectors [ringSize]unix.Iovec
	names   [ringSize]unix.RawSockaddrInet6
	data    []byte
}

func newRing() *ring {
	r := &ring{data: make([]byte, ringSize*slot)}
	for i := range r.heads {
		r.vectors[i].Base = &r.data[i*slot]
		r.vectors[i].SetLen(slot)
		h := &r.heads[i].Msghdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
	}
	return r
}

// receive takes what is there, at most ringSize datagrams, without waiting.
func (r *ring) receive(fd uintptr) (n int, errno syscall.Errno) {
	for i := range r.heads {
		r.heads[i].Namelen = unix.SizeofSockaddrInet6
	}
	got, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.heads[0])), ringSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), 0
}

// datagram returns the i-th datagram, valid until the next receive. A slot holds
// the longest that UDP can have.
func (r *ring) datagram(i int) []byte {
	return r.data[i*slot : i*slot+int(r.heads[i].len)]
}

// from returns the sender of the i-th datagram.
func (r *ring) from(i int) event.Addr {
	name := &r.names[i]
	if name.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return event.AddrOf4(four.Addr)
	}
	return event.Addr(name.Addr)
}
