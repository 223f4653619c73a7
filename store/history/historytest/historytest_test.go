package historytest

import "testing"

func TestHistory(t *testing.T) { Run(t, Open) }
