// Package terminal writes text from outside to a terminal without letting it
// act there: control characters, escape sequences and direction overrides are
// shown and not obeyed.
package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Clean returns s with everything that a terminal would act upon replaced by a
// visible escape: C0 and C1 controls (line feeds too), bytes that aren't UTF-8,
// and characters that change the direction or hide themselves (Unicode class Cf).
// Clean(Clean(s)) == Clean(s).
func Clean(s string) string {
	ok := true
	for _, r := range s {
		ok = ok && harmless(r)
	}
	if ok {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case harmless(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}

func harmless(r rune) bool {
	return r != utf8.RuneError && !unicode.IsControl(r) && !unicode.Is(unicode.Cf, r) && r != '\u2028' && r != '\u2029'
}

// Style is how a piece of text stands out.
type Style string

// The styles, as SGR parameters (ECMA-48).
const (
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "31"
	Yellow Style = "33"
	Cyan   Style = "36"
)

// Writer prints to a terminal, or plainly to anything else.
type Writer struct {
	io.Writer
	// Colour says whether styles are used.
	Colour bool
}

// New returns a writer for f, with colour if f is a terminal and neither
// NO_COLOR (no-color.org) nor TERM=dumb is set.
func New(f interface {
	io.Writer
	Fd() uintptr
}) *Writer {
	colour := term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return &Writer{f, colour}
}

// Styled returns s in the style, cleaned.
func (w *Writer) Styled(style Style, s string) string {
	s = Clean(s)
	if !w.Colour || s == "" {
		return s
	}
	return "\x1b[" + string(style) + "m" + s + "\x1b[0m"
}
