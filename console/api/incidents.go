package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"noroshi/console/desk"
	"noroshi/event"
	"noroshi/finding"
	"noroshi/incident"
	"noroshi/store/state"
)

// Sizes of pages.
const (
	defaultPage = 100
	maxPage     = 1000
)

// parameters reads a query, every parameter of which must be asked for.
type parameters struct {
	values url.Values
	known  []string
	err    error
}

func query(r *http.Request) *parameters {
	v, err := url.ParseQuery(r.URL.RawQuery)
	p := &parameters{values: v}
	if err != nil {
		p.err = wrong("the query can't be read: %v", err)
	}
	return p
}

// get returns a parameter, "" when it isn't there.
func (p *parameters) get(name string) string {
	p.known = append(p.known, name)
	if len(p.values[name]) > 1 {
		p.refuse("%s stands twice", name)
	}
	return p.values.Get(name)
}

func (p *parameters) refuse(format string, args ...any) {
	if p.err == nil {
		p.err = wrong(format, args...)
	}
}

// done returns what is wrong with the query.
func (p *parameters) done() error {
	for name := range p.values {
		if !slices.Contains(p.known, name) {
			p.refuse("there is no parameter %q; there are %s", name, strings.Join(p.known, ", "))
		}
	}
	return p.err
}

func (p *parameters) limit() int {
	text := p.get("limit")
	if text == "" {
		return defaultPage
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxPage {
		p.refuse("limit: want 1 to %d", maxPage)
	}
	return n
}

// time reads a moment (RFC 3339) or a day (its beginning in UTC).
func (p *parameters) time(name string) (t event.Time) {
	text := p.get(name)
	if text == "" {
		return 0
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, text); err == nil {
			if at.Year() < 1970 || at.Year() > 2200 {
				break
			}
			return event.TimeOf(at)
		}
	}
	p.refuse("%s: want a time such as 2026-11-24T09:00:00Z or a day such as 2026-11-24", name)
	return 0
}

// list is a page of incidents.
type list struct {
	Incidents []*incident.Incident `json:"incidents"` // the latest first
	Next      string               `json:"next,omitempty"`
}

// incidents answers GET /api/incidents.
func (a *API) incidents(_ http.ResponseWriter, r *http.Request) (any, error) {
	q := query(r)
	f := state.Filter{State: incident.State(q.get("state")), Kind: q.get("kind"), Since: q.time("since"), Limit: q.limit()}
	switch f.State {
	case "", incident.New, incident.Acknowledged, incident.Assigned, incident.Closed:
	default:
		q.refuse("state: want new, acknowledged, assigned or closed")
	}
	switch text := q.get("active"); text {
	case "", "false":
	case "true":
		f.Active = true
	default:
		q.refuse("active: want true or false")
	}
	if before := q.get("before"); before != "" {
		at, id, _ := strings.Cut(before, "-")
		said, err := strconv.ParseInt(at, 10, 64)
		if err != nil || f.BeforeID.UnmarshalText([]byte(id)) != nil {
			q.refuse("before: want what an earlier answer gave as next")
		}
		f.Before = event.Time(said)
	}
	if err := q.done(); err != nil {
		return nil, err
	}
	page, err := a.cfg.Desk.Incidents(r.Context(), f)
	if err != nil {
		return nil, err
	}
	l := list{Incidents: page}
	if page == nil {
		l.Incidents = []*incident.Incident{}
	}
	if len(page) == f.Limit {
		last := page[len(page)-1]
		l.Next = fmt.Sprintf("%d-%v", last.Said, last.ID)
	}
	return l, nil
}

// idOf reads the id in the path.
func idOf(r *http.Request) (id finding.ID, err error) {
	if id.UnmarshalText([]byte(r.PathValue("id"))) != nil {
		return id, wrong("an id has %d hexadecimal digits", 2*len(id))
	}
	return id, nil
}

// none makes ErrNone the answer 404.
func none(err error, what string) error {
	if errors.Is(err, state.ErrNone) {
		return problem{Status: http.StatusNotFound, Detail: "there is no such " + what}
	}
	return err
}

// incident answers GET /api/incidents/{id}.
func (a *API) incident(_ http.ResponseWriter, r *http.Request) (any, error) {
	id, err := idOf(r)
	if err != nil {
		return nil, err
	}
	if err := query(r).done(); err != nil {
		return nil, err
	}
	in, err := a.cfg.Desk.Incident(r.Context(), id)
	if err != nil {
		return nil, none(err, "incident")
	}
	return in, nil
}

// member is a member of an incident.
type member struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port,omitempty"` // separates devices behind one address
	Role    string     `json:"role"`
	Network string     `json:"network,omitempty"`
	First   event.Time `json:"first"`
	Last    event.Time `json:"last"`
	Ended   bool       `json:"ended"`
}

// memberPage is a page of members.
type memberPage struct {
	Members []member `json:"members"` // in the order of their addresses
	Next    string   `json:"next,omitempty"`
}

// members answers GET /api/incidents/{id}/members.
func (a *API) members(_ http.ResponseWriter, r *http.Request) (any, error) {
	id, err := idOf(r)
	if err != nil {
		return nil, err
	}
	q := query(r)
	limit := q.limit()
	var after incident.Member
	if text := q.get("after"); text != "" {
		addr, port, _ := strings.Cut(text, "_")
		ip, err := netip.ParseAddr(addr)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil {
			q.refuse("after: want what an earlier answer gave as next")
		}
		after.Addr, after.Port = event.AddrOf(ip), uint16(n)
	}
	if err := q.done(); err != nil {
		return nil, err
	}
	if _, err := a.cfg.Desk.Incident(r.Context(), id); err != nil {
		return nil, none(err, "incident")
	}
	page, err := a.cfg.Desk.Members(r.Context(), id, after, limit)
	if err != nil {
		return nil, err
	}
	out := memberPage{Members: make([]member, len(page))}
	for i, m := range page {
		out.Members[i] = member{m.Addr.Std(), m.Port, m.Role, m.Network, m.First, m.Last, m.Ended}
	}
	if len(page) == limit {
		last := page[len(page)-1]
		out.Next = fmt.Sprintf("%v_%d", last.Addr, last.Port)
	}
	return out, nil
}

// body reads the JSON of a request into v.
func body(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows the object")
		}
	}
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("at most %d octets", long.Limit)}
	case err != nil:
		return wrong("the body can't be read: %v", err)
	}
	return nil
}

// moving is a step that a person wants to take.
type moving struct {
	From   incident.State  `json:"from"` // the state the person saw
	To     incident.State  `json:"to"`
	By     string          `json:"by"`
	Owner  string          `json:"owner"`
	Reason incident.Reason `json:"reason"`
	Note   string          `json:"note"`
}

// maxText bounds the texts that people write, in octets.
const maxText = 4096

func short(texts ...string) error {
	for _, t := range texts {
		if len(t) > maxText {
			return wrong("a text is longer than %d octets", maxText)
		}
	}
	return nil
}

// move answers POST /api/incidents/{id}/move.
func (a *API) move(_ http.ResponseWriter, r *http.Request) (any, error) {
	id, err := idOf(r)
	if err != nil {
		return nil, err
	}
	var m moving
	if err := body(r, &m); err != nil {
		return nil, err
	}
	if err := short(m.By, m.Owner, m.Note); err != nil {
		return nil, err
	}
	step := incident.Step{At: event.TimeOf(time.Now()), By: m.By, To: m.To, Owner: m.Owner, Reason: m.Reason, Note: m.Note}
	in, err := a.cfg.Desk.Move(r.Context(), id, m.From, step)
	var refused *incident.MoveError
	switch {
	case errors.As(err, &refused) && refused.From != m.From:
		return nil, problem{Status: http.StatusConflict, Detail: refused.Why, State: string(refused.From)}
	case errors.As(err, &refused):
		return nil, problem{Status: http.StatusUnprocessableEntity, Detail: refused.Why, State: string(refused.From)}
	case errors.Is(err, desk.ErrNotStored):
		return nil, problem{Status: http.StatusServiceUnavailable, Detail: desk.ErrNotStored.Error(), State: string(in.State)}
	case err != nil:
		return nil, none(err, "incident")
	}
	return in, nil
}

// refused makes a state.RefusedError the answer 422.
func refused(err error) error {
	if no := new(state.RefusedError); errors.As(err, &no) {
		return problem{Status: http.StatusUnprocessableEntity, Detail: no.Why}
	}
	return err
}

// notes answers GET /api/incidents/{id}/notes.
func (a *API) notes(_ http.ResponseWriter, r *http.Request) (any, error) {
	id, err := idOf(r)
	if err != nil {
		return nil, err
	}
	if err := query(r).done(); err != nil {
		return nil, err
	}
	if _, err := a.cfg.Desk.Incident(r.Context(), id); err != nil {
		return nil, none(err, "incident")
	}
	list, err := a.cfg.Desk.Notes(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if list == nil {
		list = []state.Note{}
	}
	return map[string]any{"notes": list}, nil
}

// addNote answers POST /api/incidents/{id}/notes.
func (a *API) addNote(w http.ResponseWriter, r *http.Request) (any, error) {
	id, err := idOf(r)
	if err != nil {
		return nil, err
	}
	var said struct {
		By   string `json:"by"`
		Text string `json:"text"`
	}
	if err := body(r, &said); err != nil {
		return nil, err
	}
	n := state.Note{Incident: id, At: event.TimeOf(time.Now()), By: said.By, Text: said.Text}
	if n.ID, err = a.cfg.Desk.AddNote(r.Context(), n); err != nil {
		return nil, none(refused(err), "incident")
	}
	answer(w, http.StatusCreated, n)
	return nil, nil
}

// auditPage is a page of the audit chain.
type auditPage struct {
	Rows []state.Entry `json:"rows"` // the latest first
	Next string        `json:"next,omitempty"`
}

// audit answers GET /api/audit.
func (a *API) audit(_ http.ResponseWriter, r *http.Request) (any, error) {
	q := query(r)
	object, limit, before := q.get("object"), q.limit(), int64(0)
	if text := q.get("before"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if before = n; err != nil || n < 1 {
			q.refuse("before: want what an earlier answer gave as next")
		}
	}
	if err := q.done(); err != nil {
		return nil, err
	}
	rows, err := a.cfg.Desk.Audit(r.Context(), object, before, limit)
	if err != nil {
		return nil, err
	}
	page := auditPage{Rows: rows}
	if rows == nil {
		page.Rows = []state.Entry{}
	}
	if len(rows) == limit {
		page.Next = strconv.FormatInt(rows[limit-1].Seq, 10)
	}
	return page, nil
}

// exceptions answers GET /api/exceptions.
func (a *API) exceptions(_ http.ResponseWriter, r *http.Request) (any, error) {
	if err := query(r).done(); err != nil {
		return nil, err
	}
	list := a.cfg.Desk.Exceptions()
	if list == nil {
		list = []incident.Exception{}
	}
	return map[string]any{"exceptions": list}, nil
}

// addException answers POST /api/exceptions.
func (a *API) addException(w http.ResponseWriter, r *http.Request) (any, error) {
	var e incident.Exception
	if err := body(r, &e); err != nil {
		return nil, err
	}
	if err := short(e.Rule, e.Key, e.Owner, e.Note); err != nil {
		return nil, err
	}
	now := event.TimeOf(time.Now())
	e.ID, e.Hits, e.Last = 0, 0, 0
	if e.Expires != 0 && e.Expires <= now {
		return nil, problem{Status: http.StatusUnprocessableEntity, Detail: "it has expired already"}
	}
	if e.Subject.IsValid() && e.Subject != e.Subject.Masked() {
		return nil, problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf("the subject has bits set behind its length; did you mean %v?", e.Subject.Masked())}
	}
	id, err := a.cfg.Desk.Except(r.Context(), e)
	var lacks *incident.ExceptionError
	switch {
	case errors.As(err, &lacks):
		return nil, problem{Status: http.StatusUnprocessableEntity, Detail: lacks.Why}
	case err != nil:
		return nil, err
	}
	e.ID = id
	w.Header().Set("Location", fmt.Sprintf("/api/exceptions/%d", id))
	answer(w, http.StatusCreated, e)
	return nil, nil
}

// removeException answers DELETE /api/exceptions/{id}.
func (a *API) removeException(w http.ResponseWriter, r *http.Request) (any, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, wrong("an exception's id is a number")
	}
	q := query(r)
	by := q.get("by")
	if by == "" {
		q.refuse("by: want who removes it, as in ?by=sato")
	}
	if err := q.done(); err != nil {
		return nil, err
	}
	if err := a.cfg.Desk.Forget(r.Context(), id, by); err != nil {
		return nil, none(refused(err), "exception")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil, nil
}

// infected answers GET /api/infected. Days without observation have no numbers:
// their hosts are null, where a day on which nothing was found has an empty
// list.
func (a *API) infected(_ http.ResponseWriter, r *http.Request) (any, error) {
	q := query(r)
	from, to := q.time("from"), q.time("to")
	if to == 0 {
		to = event.TimeOf(time.Now())
	}
	if from == 0 {
		from = to.Add(-29 * 24 * time.Hour)
	}
	if days := to.Sub(from).Hours() / 24; days < 0 || days > 3650 {
		q.refuse("from and to: want at most ten years, from not after to")
	}
	if err := q.done(); err != nil {
		return nil, err
	}
	days, err := a.cfg.Desk.Infected(r.Context(), from, to)
	if err != nil {
		return nil, err
	}
	type day struct {
		Day      string        `json:"day"`
		Observed bool          `json:"observed"`
		Hosts    []state.Hosts `json:"hosts"`
	}
	out := make([]day, len(days))
	for i, d := range days {
		out[i] = day{d.Day.Format(time.DateOnly), d.Observed, d.Hosts}
		if !d.Observed {
			out[i].Hosts = nil
		}
	}
	return map[string]any{"days": out}, nil
}
