package memory

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"noroshi/store/history"
)

// The disk is full: Keep goes on, what finds no room is counted as lost and
// shown as that, and when there is room again all goes on without hands.
func TestDiskFull(t *testing.T) {
	c := config(t)
	root := filepath.Dir(c.History.Folder)
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1500m"); err != nil { // 1 GiB is the spool's reserve
		t.Skipf("SKIPPED: a small file system can't be mounted: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	m, end := start(t, c)
	kept := 0
	keep := func() {
		m.Keep(numbered(kept, 1000))
		kept += 1000
	}
	keep()
	eventually(t, "the first flows are stored", func() bool { return m.Stats().Writer.Kept["flows"] == 1000 })

	ballast := filepath.Join(root, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for {
		if _, err := f.Write(block); err != nil {
			break // full
		}
	}
	_ = f.Close()
	lost := func() uint64 { return m.Stats().Writer.Lost["flows"][history.LostDiskFull] }
	eventually(t, "flows are lost", func() bool {
		keep()
		time.Sleep(200 * time.Millisecond)
		return lost() > 0
	})

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	before := m.Stats().Writer.Kept["flows"]
	eventually(t, "flows are stored again", func() bool {
		keep()
		return m.Stats().Writer.Kept["flows"] > before+3000
	})
	eventually(t, "all is stored or lost", func() bool {
		return m.Stats().Writer.Kept["flows"]+lost() == uint64(kept)
	})
	// That something was lost, and why, can be asked for.
	q := ask(t, c)
	eventually(t, "the loss is written down", func() bool {
		covered, _, err := q.Coverage(t.Context(), history.Flows, today(), time.Minute)
		return err == nil && covered.Lost == lost() && covered.Kept == m.Stats().Writer.Kept["flows"]
	})
	end()
}
