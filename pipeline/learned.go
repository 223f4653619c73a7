package pipeline

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"noroshi/detect"
	"noroshi/event"
)

// keepEvery is how often what detectors learned is written, in event time.
const keepEvery = event.Time(10 * time.Minute)

// learnedFile is where a lane keeps what one of its detectors learned.
func (l *lane) learnedFile(i int) string {
	return fmt.Sprintf("%s.%s.%d", l.Learned, l.specs[i].Spec.Name, l.index)
}

// recall gives the lane's i-th detector what any lane's had learned when it was
// last written: with another number of shards an object may be another's. One
// that failed and begins anew gets it too, lest it write nothing over it.
func (l *lane) recall(i int) {
	learner, ok := l.detectors[i].(detect.Learner)
	if !ok || l.Learned == "" {
		return
	}
	files, _ := filepath.Glob(l.Learned + "." + l.specs[i].Spec.Name + ".*[0-9]")
	slices.Sort(files)
	for _, path := range files {
		if err := load(learner, path); err != nil {
			slog.Warn("what was learned can't be read; it will be learned anew", "file", path, "error", err)
		}
	}
}

func load(d detect.Learner, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.Load(f)
}

// keep writes what the lane's detectors learned, if it is time or at the end.
func (l *lane) keep(now event.Time, end bool) {
	if l.Learned == "" || !end && now-l.kept < keepEvery {
		return
	}
	first := l.kept == 0
	l.kept = now
	if first && !end {
		return
	}
	for i, d := range l.detectors {
		if learner, ok := d.(detect.Learner); ok {
			if err := save(learner, l.learnedFile(i)); err != nil {
				slog.Warn("what was learned can't be kept; after a restart it is learned anew", "error", err)
			}
		}
	}
}

// save replaces the file at path as a whole.
func save(d detect.Learner, path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	err = errors.Join(d.Save(f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
