//go:build !noengine

package chdb

import "github.com/ebitengine/purego"

// Linked says that this program can load a library. It can't if it was built
// with the tag noengine, which makes a static program: purego needs the C
// library's loader.
const Linked = true

func openLibrary(path string) (uintptr, error) {
	return purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
}

func closeLibrary(handle uintptr) { _ = purego.Dlclose(handle) }

func symbol(handle uintptr, name string) (uintptr, error) { return purego.Dlsym(handle, name) }

func bind(function any, symbol uintptr) { purego.RegisterFunc(function, symbol) }
