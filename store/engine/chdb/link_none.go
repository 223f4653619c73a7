//go:build noengine

package chdb

import "errors"

// Linked says that this program can load a library: it can't.
const Linked = false

var errNone = errors.New("this program was built without the embedded engine")

func openLibrary(string) (uintptr, error)     { return 0, errNone }
func closeLibrary(uintptr)                    {}
func symbol(uintptr, string) (uintptr, error) { return 0, errNone }
func bind(any, uintptr)                       {}
