package udp

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// drops asks the kernel how many datagrams it had to drop for a socket. The
// count is exact at any time, also when no datagram has come since: a message's
// own count (SO_RXQ_OVFL) comes too late for the last burst.
type drops struct {
	mu        sync.Mutex
	low, high uint64 // the kernel's count of 32 bits, unrolled
}

// skMeminfoDrops is the index of the drops in what SO_MEMINFO returns
// (linux/sock_diag.h; Linux 4.12 and newer).
const skMeminfoDrops = 8

// ask returns the count; once the socket is closed, the last that was known.
func (d *drops) ask(raw syscall.RawConn) uint64 {
	var info [skMeminfoDrops + 1]uint32
	asked := false
	_ = raw.Control(func(fd uintptr) {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		asked = errno == 0 && size >= uint32(unsafe.Sizeof(info))
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if asked {
		d.note(info[skMeminfoDrops])
	}
	return d.high + d.low
}

// note takes in the kernel's count, which wraps.
func (d *drops) note(n uint32) {
	if uint64(n) < d.low {
		d.high += 1 << 32
	}
	d.low = uint64(n)
}
