package engine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Usage is what a process uses, as its kernel says; zero if it is gone.
type Usage struct {
	RSS     uint64 `json:"rss"`     // octets of memory
	Threads int    `json:"threads"` // of the operating system
	Files   int    `json:"files"`   // descriptors
}

func usageOf(pid int) (u Usage) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "VmRSS:":
			kib, _ := strconv.ParseUint(f[1], 10, 64)
			u.RSS = kib << 10
		case "Threads:":
			u.Threads, _ = strconv.Atoi(f[1])
		}
	}
	if files, err := os.ReadDir(dir + "fd"); err == nil {
		u.Files = len(files)
	}
	return u
}
