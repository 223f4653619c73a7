package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"noroshi/console/desk"
)

// heartbeat is how often a silent stream says that it is alive.
const heartbeat = 15 * time.Second

// stream answers GET /api/incidents/stream with server-sent events (WHATWG
// HTML, 9.2): "incident" with an incident as it now stands, "lost" when the
// client should read the list anew.
func (a *API) stream(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := query(r).done(); err != nil {
		return nil, err
	}
	f, err := a.cfg.Desk.Follow(r.Header.Get("Last-Event-ID"))
	if errors.Is(err, desk.ErrCrowded) {
		w.Header().Set("Retry-After", "10")
		return nil, problem{Status: http.StatusServiceUnavailable, Detail: err.Error()}
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	// send gives a client that doesn't read as long as any other request.
	send := func(text string) bool {
		_ = control.SetWriteDeadline(time.Now().Add(writeWithin))
		_, err := w.Write([]byte(text))
		return err == nil && control.Flush() == nil
	}
	_ = control.SetReadDeadline(time.Time{})
	for ok := send("retry: 2000\n\n"); ok; {
		ctx, cancel := context.WithTimeout(r.Context(), heartbeat)
		e, err := f.Next(ctx)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			ok = send(": still here\n\n")
		case err != nil:
			return nil, nil
		case e.JSON == nil:
			ok = send(fmt.Sprintf("id: %s\nevent: lost\ndata: {}\n\n", e.ID))
		default:
			ok = send(fmt.Sprintf("id: %s\nevent: incident\ndata: %s\n\n", e.ID, e.JSON))
		}
	}
	return nil, nil
}
