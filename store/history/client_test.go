package history

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// Only an empty answer to an INSERT says that it is stored: not the page of a
// proxy, nor what a redirect leads to.
func TestOnlyTheStoreSaysStored(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/page/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in")) })
	mux.HandleFunc("/moved/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/empty/", http.StatusFound) })
	mux.HandleFunc("/empty/", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, stored := range map[string]bool{"/page": false, "/moved": false, "/empty": true} {
		cfg := Default()
		cfg.URL = server.URL + path
		c, err := cfg.Remote()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Insert(t.Context(), cfg.Layout(), &Block{ID: "a-1", Table: "flows"}); (err == nil) != stored {
			t.Errorf("%s: %v", path, err)
		}
	}
}
