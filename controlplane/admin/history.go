package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ErrRefused says that what was asked for can't be had, now or later.
var ErrRefused = errors.New("refused")

// HistoryRequest asks for an event-sourced entity's events.
type HistoryRequest struct {
	Type, Key string
	// From is the first event wanted; 0 is as 1.
	From uint64
	// Follow goes on with what is committed from now on.
	Follow bool
}

// Path is where the API has it.
func (r HistoryRequest) Path() string {
	query := url.Values{}
	if r.From > 0 {
		query.Set("from", strconv.FormatUint(r.From, 10))
	}
	if r.Follow {
		query.Set("follow", "true")
	}
	path := "/v1/history/" + url.PathEscape(r.Type) + "/" + url.PathEscape(r.Key)
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path
}

// HistoryLine is one line of the answer to GET /v1/history/{type}/{key}: a JSON object with an event, with nothing new but
// the last sequence, or, as the last line, with why there are no more.
type HistoryLine struct {
	Event *Event `json:"event,omitempty"`
	// LastSequence is the last committed event's when this was read.
	LastSequence uint64 `json:"lastSequence"`
	Error        string `json:"error,omitempty"`
}

// Event is one of an entity's events.
type Event struct {
	Sequence uint64    `json:"sequence"`
	Type     string    `json:"type"`
	Time     time.Time `json:"time"`
	// Payload is the service's own bytes; base64 in JSON.
	Payload []byte `json:"payload"`
	// Message is the payload as JSON where it is JSON, or a message that the service's descriptors have under the event's
	// type.
	Message json.RawMessage `json:"message,omitempty"`
}

// history streams lines as they come.
func history(w http.ResponseWriter, r *http.Request, s Source) {
	typ, key, err := entityOf(r, "/v1/history/")
	request := HistoryRequest{Type: typ, Key: key}
	query := r.URL.Query()
	if v := query.Get("from"); v != "" && err == nil {
		request.From, err = strconv.ParseUint(v, 10, 64)
	}
	if v := query.Get("follow"); v != "" && err == nil {
		request.Follow, err = strconv.ParseBool(v)
	}
	if err != nil {
		reply(w, http.StatusBadRequest, Error{"write /v1/history/TYPE/KEY?from=NUMBER&follow=true, type and key percent-encoded"})
		return
	}
	out := json.NewEncoder(w)
	begun := false
	err = s.History(r.Context(), request, func(line *HistoryLine) error {
		if !begun {
			w.Header().Set("content-type", "application/x-ndjson")
			begun = true
		}
		if err := out.Encode(line); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	})
	switch {
	case err == nil:
	case begun:
		// The caller is gone where this fails.
		_ = out.Encode(&HistoryLine{Error: err.Error()})
	case errors.Is(err, ErrNotFound):
		reply(w, http.StatusNotFound, Error{err.Error()})
	case errors.Is(err, ErrRefused):
		reply(w, http.StatusConflict, Error{err.Error()})
	default:
		reply(w, http.StatusServiceUnavailable, Error{err.Error()})
	}
}

// entityOf is the entity that a path below prefix names. The mux has decoded the path; the key may hold a slash, so it is
// taken apart before decoding.
func entityOf(r *http.Request, prefix string) (entityType, key string, err error) {
	rest := strings.TrimPrefix(r.URL.EscapedPath(), prefix)
	rawType, rawKey, _ := strings.Cut(rest, "/")
	entityType, err1 := url.PathUnescape(rawType)
	key, err2 := url.PathUnescape(rawKey)
	if err = errors.Join(err1, err2); err == nil && (entityType == "" || key == "" || len(rest) > maxKey) {
		err = fmt.Errorf("%q is no TYPE/KEY", rest)
	}
	return entityType, key, err
}
