// Package confine takes from this process what it does not need: files outside
// named folders (Landlock), sockets other than unix ones, and starting programs
// (seccomp). The engine's process is confined so before it opens its data, as
// the wall behind every check of a statement.
package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Access is what is allowed beneath a path.
type Access uint8

// The kinds of access.
const (
	Read    Access = iota // read files and list folders
	Execute               // that, and start programs
	Write                 // read, change, create, remove, rename and link
)

// A Path is a file, or a folder with all beneath it. One that isn't there is
// passed over.
type Path struct {
	Path   string
	Access Access
}

// ErrNoLandlock says that the kernel does not have Landlock in the form needed
// (ABI 2, Linux 5.19; without it, files could not be linked between folders), or
// that it is turned off.
var ErrNoLandlock = errors.New("confine: the kernel has no Landlock (Linux 5.19 or newer, lsm=landlock)")

const (
	readRights    = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	executeRights = readRights | unix.LANDLOCK_ACCESS_FS_EXECUTE
	// Devices can't be made; all else can.
	writeRights = readRights | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	// What makes sense for a file that is not a folder.
	fileRights = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_TRUNCATE

	allABI1 = 1<<13 - 1 // EXECUTE to MAKE_SYM
)

// Files leaves this thread, and what it becomes by exec, nothing of the file
// system but paths, and no TCP where the kernel can do that (ABI 4, Linux 6.7).
// It returns the ABI of the kernel's Landlock.
//
// Landlock holds for one thread and for those it starts. A Go program has others
// already, and one that has loaded C code can't reach them all: so the caller
// locks its thread, calls Files, and then [Exec], after which every thread is
// confined from the beginning.
func Files(paths []Path) (abi int, err error) {
	r, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if abi = int(r); errno != 0 || abi < 2 {
		return 0, ErrNoLandlock
	}
	handled := unix.LandlockRulesetAttr{Handled_access_fs: allABI1 | unix.LANDLOCK_ACCESS_FS_REFER}
	if abi >= 3 {
		handled.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		handled.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 5 {
		handled.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		handled.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	size := uintptr(24) // what the kernel knows of the struct
	switch {
	case abi < 4:
		size = 8
	case abi < 6:
		size = 16
	}
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), size, 0)
	if errno != 0 {
		return abi, fmt.Errorf("confine: Landlock: %w", errno)
	}
	defer func() { _ = unix.Close(int(set)) }()
	for _, p := range paths {
		if err := allow(int(set), p, handled.Handled_access_fs); err != nil {
			return abi, err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return abi, fmt.Errorf("confine: no new privileges: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return abi, fmt.Errorf("confine: Landlock: %w", errno)
	}
	return abi, nil
}

func allow(set int, p Path, handled uint64) error {
	fd, err := unix.Open(p.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("confine: %s: %w", p.Path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	rights := [...]uint64{Read: readRights, Execute: executeRights, Write: writeRights}[p.Access] & handled
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("confine: %s: %w", p.Path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights
	}
	// The kernel's struct is packed: 8 octets of rights, 4 of descriptor.
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("confine: %s: %w", p.Path, errno)
	}
	return nil
}

// Exec puts this program anew in the place of this process, with the same
// arguments and the given environment. It returns only an error.
func Exec(env []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	return fmt.Errorf("confine: %s: %w", self, unix.Exec(self, os.Args, env))
}

// architecture is the kernel's name of this one; the two are all that seccomp
// filters are written for here.
var architecture = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]

// Calls takes from every thread of this process, for good: sockets other than
// unix ones (with IPv4 and IPv6 goes name resolution, too), starting programs,
// and looking into other processes. What is refused fails with EACCES.
func Calls() error {
	if architecture == 0 {
		return fmt.Errorf("confine: no seccomp filter is known for %s", runtime.GOARCH)
	}
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atLow  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		answer = unix.BPF_RET | unix.BPF_K
		// Offsets in struct seccomp_data.
		number, arch, arg0 = 0, 4, 16
	)
	refused := []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_IO_URING_SETUP}
	n := uint8(len(refused))
	// Jumps are counted from the instruction behind; the last two are "allow" and "refuse".
	prog := []unix.SockFilter{
		{Code: load, K: arch},
		{Code: equal, K: architecture, Jf: n + 6},
		{Code: load, K: number},
		{Code: atLow, K: 1 << 30, Jt: n + 4}, // the x32 numbers of x86
	}
	for i, nr := range refused {
		prog = append(prog, unix.SockFilter{Code: equal, K: nr, Jt: n + 3 - uint8(i)})
	}
	prog = append(prog,
		unix.SockFilter{Code: equal, K: unix.SYS_SOCKET, Jf: 2},
		unix.SockFilter{Code: load, K: arg0},
		unix.SockFilter{Code: equal, K: unix.AF_UNIX, Jf: 1},
		unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)},
	)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("confine: no new privileges: %w", err)
	}
	filter := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return fmt.Errorf("confine: seccomp: %w", errno)
	}
	return nil
}

// Limits sets the limits of this process: as many open files as its hard limit
// allows, and no core dump, which would hold what the engine had in memory.
func Limits() error {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("confine: open files: %w", err)
	}
	files.Cur = files.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("confine: open files: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("confine: core dumps: %w", err)
	}
	return nil
}
