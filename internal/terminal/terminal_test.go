package terminal

import (
	"bytes"
	"testing"
)

func TestClean(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := Clean(in); got != want || Clean(got) != got {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
	f("plain, 日本語, ü", "plain, 日本語, ü")
	f("\x1b[2J\a", `\u001b[2J\u0007`)
	f("a\nb\r", `a\u000ab\u000d`)
	f("exe.\u202egpj", `exe.\u202egpj`)
	f("\u009b31m", `\u009b31m`)
	f("\xff\xfe", `\xff\xfe`)
	f("zero\u200bwidth", `zero\u200bwidth`)
}

func TestStyled(t *testing.T) {
	var b bytes.Buffer
	plain, colour := Writer{&b, false}, Writer{&b, true}
	if got := plain.Styled(Red, "x\x1b"); got != `x\u001b` {
		t.Errorf("%q", got)
	}
	if got := colour.Styled(Red, "x\x1b"); got != "\x1b[31mx\\u001b\x1b[0m" {
		t.Errorf("%q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b]0;title\a")
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		for _, r := range got {
			if !harmless(r) {
				t.Fatalf("%q keeps %q", got, r)
			}
		}
	})
}
