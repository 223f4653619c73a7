package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/term"

	"noroshi/detect/all"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/internal/terminal"
	"noroshi/pipeline"
	"noroshi/source/recording"
)

var replayCommand = command{
	name: "replay", synopsis: "[flags] PATH...",
	short: "Read recorded telemetry and say what is in it",
	long: `PATH is a file, a folder with all that is in it, or - for standard input.
Content decides what a file is: captures (pcap, pcapng; plain, gzip, zstd or xz)
of packets or of recorded NetFlow, IPFIX and sFlow, or one such datagram.

  noroshi replay capture.pcap
  noroshi replay --json folder/ | jq .title
  tcpdump -w - -i eth0 | noroshi replay -
`,
	run: replay,
}

func replay(ctx context.Context, c *call) int {
	var asJSON, findings bool
	var lang string
	paths, code, ok := c.parse(func(fs *flag.FlagSet) {
		fs.BoolVar(&asJSON, "json", false, "one JSON object per line")
		fs.BoolVar(&findings, "findings", false, "findings in place of incidents")
		fs.StringVar(&lang, "lang", "", "language of the text: en or ja (default: the locale's)")
	})
	if !ok {
		return code
	}
	l, err := languageOf(lang)
	if err != nil {
		return c.wrong("%v", err)
	}
	if len(paths) == 0 {
		return c.wrong("name a file or a folder, or - for standard input")
	}
	rec := recording.New(paths, recording.Config{Stdin: c.stdin})
	correlator := incident.NewCorrelator(incident.Config{})
	seen := map[finding.ID]*incident.Incident{}
	note := func() {
		for _, in := range correlator.Changes() {
			seen[in.ID] = in
		}
	}
	p := &pipeline.Pipeline{
		Report: func(f *finding.Finding) {
			if findings {
				_ = writeLine(c.stdout, f)
				return
			}
			correlator.Add(f)
		},
	}
	for _, s := range all.Specs {
		p.Detectors = append(p.Detectors, pipeline.Detector{Spec: s})
	}
	stop := c.progress(rec)
	err = p.Run(ctx, rec)
	stop()
	note()
	list := make([]*incident.Incident, 0, len(seen))
	for _, in := range seen {
		if in.Merged == nil {
			list = append(list, in)
		}
	}
	inOrder(list)
	w := terminal.New(c.stdout)
	for _, in := range list {
		if asJSON {
			_ = writeLine(c.stdout, in)
		} else {
			showIncident(w, l, in)
		}
	}
	if err != nil {
		var files *recording.FileError
		if !errors.As(err, &files) {
			return c.failed(err)
		}
		fmt.Fprintf(c.stderr, "noroshi %s: %v\n", c.name, err)
		if rec.Progress().Packets == 0 {
			return exitFailed
		}
		return exitPartial
	}
	if ctx.Err() != nil {
		return exitPartial
	}
	return exitOK
}

// progress shows on a terminal how far the reading has come.
func (c *call) progress(rec *recording.Recording) (stop func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func() {}
	}
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(c.stderr, "\r\x1b[K")
				return
			case <-t.C:
				p := rec.Progress()
				fmt.Fprintf(c.stderr, "\r\x1b[K%d packets, %d of %d MB", p.Packets, p.Octets>>20, p.Total>>20)
			}
		}
	}()
	return func() { close(done); <-gone }
}
