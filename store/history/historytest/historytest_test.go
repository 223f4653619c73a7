package historytest

import (
	"testing"

	"noroshi/store/engine/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// TestURL is what make test-cluster runs against a URL; without one it runs on
// the embedded engine.
func TestURL(t *testing.T) { Run(t, Open) }
