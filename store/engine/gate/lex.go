package gate

import "strings"

// The kinds of token. What only separates (blanks, comments) is no token.
type kind uint8

const (
	word   kind = iota // a bare word: keyword or identifier
	quoted             // an identifier in "" or ``
	text               // a string, heredocs included
	number
	mark // one character of punctuation
)

// A token is a piece of a statement. For quoted and text, value is what is
// between the quotes, as written.
type token struct {
	kind     kind
	value    string
	from, to int // its octets in the statement
}

// is reports whether t is the bare word w, which is in capitals.
func (t token) is(w string) bool { return t.kind == word && strings.EqualFold(t.value, w) }

func (t token) isMark(c byte) bool { return t.kind == mark && t.value[0] == c }

// name reports whether t can name something.
func (t token) name() bool { return t.kind == word || t.kind == quoted }

// lex splits a statement into tokens. It is stricter than the engine's lexer:
// wherever the two could read a text differently it refuses, so that nothing
// passes as harmless that the engine reads as something else.
func lex(s string) ([]token, error) {
	var ts []token
	for i := 0; i < len(s); {
		c := s[i]
		from := i
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case strings.HasPrefix(s[i:], "--"):
			end := strings.IndexByte(s[i:], '\n')
			if end < 0 {
				end = len(s) - i
			}
			comment := strings.TrimSuffix(s[i:i+end], "\r")
			if !printable(comment) {
				return nil, refuse("a comment has characters other than printable ASCII and tabs")
			}
			i += end
			continue
		case strings.HasPrefix(s[i:], "/*"):
			end := strings.Index(s[i+2:], "*/")
			if end < 0 {
				return nil, refuse("a comment does not end")
			}
			if strings.Contains(s[i+2:i+2+end], "/*") {
				return nil, refuse("a comment holds another")
			}
			i += 2 + end + 2
			continue
		case c == '\'':
			end := stringEnd(s, i)
			if end < 0 {
				return nil, refuse("a string does not end")
			}
			i = end
			ts = append(ts, token{text, s[from+1 : i-1], from, i})
			continue
		case c == '"' || c == '`':
			end := strings.IndexByte(s[i+1:], c)
			if end < 0 {
				return nil, refuse("a quoted name does not end")
			}
			i += 1 + end + 1
			v := s[from+1 : i-1]
			if v == "" || strings.IndexByte(v, '\\') >= 0 || i < len(s) && s[i] == c {
				return nil, refuse("a quoted name is empty or has escapes")
			}
			ts = append(ts, token{quoted, v, from, i})
			continue
		case c == '$':
			end := i + 1
			for end < len(s) && isWord(s[end]) {
				end++
			}
			if end == len(s) || s[end] != '$' {
				return nil, refuse("a dollar sign begins no heredoc")
			}
			tag := s[i : end+1]
			length := strings.Index(s[end+1:], tag)
			if length < 0 {
				return nil, refuse("a heredoc does not end")
			}
			i = end + 1 + length + len(tag)
			ts = append(ts, token{text, s[end+1 : end+1+length], from, i})
			continue
		case c >= '0' && c <= '9':
			end, ok := numberEnd(s, i)
			if !ok {
				return nil, refuse("a number runs into a word")
			}
			i = end
			ts = append(ts, token{number, s[from:i], from, i})
			continue
		case isWord(c):
			for i < len(s) && isWord(s[i]) {
				i++
			}
			if i < len(s) && s[i] == '$' {
				return nil, refuse("a name has a dollar sign")
			}
			v := s[from:i]
			if i < len(s) && s[i] == '\'' && len(v) == 1 && strings.ContainsAny(v, "xXbB") {
				end := strings.IndexByte(s[i+1:], '\'')
				if end < 0 || strings.Trim(s[i+1:i+1+end], "0123456789abcdefABCDEF") != "" {
					return nil, refuse("a string of digits has something else")
				}
				i += 1 + end + 1
				ts = append(ts, token{text, "", from, i})
				continue
			}
			ts = append(ts, token{word, v, from, i})
			continue
		case strings.IndexByte("()[]{},.;:=<>+-*/%!?|^&~@", c) >= 0:
			i++
			ts = append(ts, token{mark, s[from:i], from, i})
			continue
		default:
			return nil, refuse("the character %q stands outside strings and names", []rune(s[i:])[0])
		}
	}
	return ts, nil
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// printable reports whether s has only printable ASCII and tabs: another
// character may end a line for one lexer and not for another.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] != '\t' && (s[i] < ' ' || s[i] > '~') {
			return false
		}
	}
	return true
}

// stringEnd returns where the string that begins at i ends, or -1.
func stringEnd(s string, i int) int {
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '\'':
			if i+1 == len(s) || s[i+1] != '\'' {
				return i + 1
			}
			i++
		}
	}
	return -1
}

// numberEnd returns where the number that begins at i ends.
func numberEnd(s string, i int) (end int, ok bool) {
	digits := func(set string) {
		for i < len(s) && strings.IndexByte(set, s[i]) >= 0 {
			i++
		}
	}
	switch {
	case strings.HasPrefix(s[i:], "0x"):
		i += 2
		digits("0123456789abcdefABCDEF")
	case strings.HasPrefix(s[i:], "0b"):
		i += 2
		digits("01")
	default:
		digits("0123456789_")
		if i < len(s) && s[i] == '.' {
			i++
			digits("0123456789_")
		}
		if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
			i++
			if i < len(s) && (s[i] == '+' || s[i] == '-') {
				i++
			}
			digits("0123456789")
		}
	}
	return i, i == len(s) || !isWord(s[i]) && s[i] != '$'
}
