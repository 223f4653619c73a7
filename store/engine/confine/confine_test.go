package confine

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary confines itself to the folder that CONFINE names and then says
// what it can still do.
func TestMain(m *testing.M) {
	dir := os.Getenv("CONFINE")
	switch {
	case dir == "":
		os.Exit(m.Run())
	case os.Getenv("CONFINED") == "":
		self, _ := os.Executable()
		runtime.LockOSThread()
		paths := []Path{{dir, Write}, {filepath.Join(filepath.Dir(dir), "seen"), Read}, {self, Execute}, {"/lib", Execute}, {"/lib64", Execute}, {"/usr/lib", Execute}, {"/nowhere", Read}}
		if _, err := Files(paths); errors.Is(err, ErrNoLandlock) {
			os.Stdout.WriteString("no landlock")
			return
		} else if err != nil {
			panic(err)
		}
		panic(Exec(append(os.Environ(), "CONFINED=1")))
	}
	if err := Limits(); err != nil {
		panic(err)
	}
	if err := Calls(); err != nil {
		panic(err)
	}
	up := filepath.Dir(dir)
	_, list := os.ReadDir(up)
	_, hidden := os.ReadFile(filepath.Join(up, "hidden"))
	_, seen := os.ReadFile(filepath.Join(up, "seen"))
	_, dial := net.Dial("tcp", os.Getenv("DIAL"))
	_, udp := net.Dial("udp", "127.0.0.1:9")
	_, _, ring := syscall.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	local, listen := net.Listen("unix", filepath.Join(dir, "s"))
	if listen == nil {
		_ = local.Close()
	}
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o700); err != nil {
		panic(err)
	}
	var files unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
	for _, check := range []struct {
		what string
		ok   bool
	}{
		{"lists the folder above", errors.Is(list, fs.ErrPermission)},
		{"reads what is not named", errors.Is(hidden, fs.ErrPermission)},
		{"does not read what is named", seen == nil},
		{"writes what it may read", errors.Is(os.WriteFile(filepath.Join(up, "seen"), nil, 0o600), fs.ErrPermission)},
		{"writes elsewhere", errors.Is(os.WriteFile(filepath.Join(up, "new"), nil, 0o600), fs.ErrPermission)},
		{"does not write in its folder", os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600) == nil},
		{"does not rename between folders", os.Rename(filepath.Join(dir, "f"), filepath.Join(dir, "a", "f")) == nil},
		{"takes a file out of its folder", os.Rename(filepath.Join(dir, "a", "f"), filepath.Join(up, "f")) != nil},
		{"connects by TCP", errors.Is(dial, fs.ErrPermission)},
		{"sends by UDP", errors.Is(udp, fs.ErrPermission)},
		{"has io_uring", ring == unix.EACCES},
		{"does not listen on a unix socket", listen == nil},
		{"starts a program", exec.Command(os.Args[0]).Run() != nil},
		{"has a low limit of files", files.Cur == files.Max},
	} {
		if !check.ok {
			os.Stdout.WriteString("it " + check.what + "\n")
		}
	}
}

func TestConfined(t *testing.T) {
	up := t.TempDir()
	dir := filepath.Join(up, "mine")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"hidden", "seen"} {
		if err := os.WriteFile(filepath.Join(up, f), []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CONFINE="+dir, "DIAL="+l.Addr().String())
	out, err := cmd.CombinedOutput()
	if strings.HasPrefix(string(out), "no landlock") {
		t.Skip(ErrNoLandlock)
	}
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
