package botnet

import (
	"testing"

	"noroshi/detect/detecttest"
)

func TestCases(t *testing.T) { detecttest.Run(t, &Spec) }
