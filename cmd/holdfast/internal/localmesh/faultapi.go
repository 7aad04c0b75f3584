package localmesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// routeFaults adds faults and gossip keys to the supervisor's API.
func (m *Mesh) routeFaults(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/fault", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, m.Fault(r.Context())) })
	mux.HandleFunc("PUT /v1/fault", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxScaleBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&f); err != nil {
			answer(w, http.StatusBadRequest, ErrorBody{fmt.Sprintf("body must be {\"groups\": [[\"node-1\"], …]}: %v", err)})
			return
		}
		m.answerFault(w, f.Groups)
	})
	mux.HandleFunc("DELETE /v1/fault", func(w http.ResponseWriter, _ *http.Request) { m.answerFault(w, nil) })
	mux.HandleFunc("GET /v1/gossip", func(w http.ResponseWriter, r *http.Request) {
		s, err := m.Gossip(r.Context())
		if err != nil {
			answer(w, http.StatusInternalServerError, ErrorBody{err.Error()})
			return
		}
		answer(w, http.StatusOK, s)
	})
	mux.HandleFunc("POST /v1/gossip/rotate", m.handleRotate)
}

func (m *Mesh) answerFault(w http.ResponseWriter, groups [][]string) {
	// Whoever asked may go away; a half-done change would be worse.
	switch f, err := m.Partition(m.life, groups); {
	case errors.Is(err, errBusy):
		answer(w, http.StatusConflict, ErrorBody{err.Error()})
	case err != nil:
		answer(w, http.StatusBadRequest, ErrorBody{err.Error()})
	default:
		answer(w, http.StatusOK, f)
	}
}

// handleRotate answers with a line for each step as it is done.
func (m *Mesh) handleRotate(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	e := json.NewEncoder(w)
	say := func(s RotateStep) {
		_ = e.Encode(s) // The caller may be gone; the rotation goes on.
		_ = http.NewResponseController(w).Flush()
	}
	keys, err := m.Rotate(m.life, func(format string, args ...any) { say(RotateStep{Step: fmt.Sprintf(format, args...)}) })
	if err != nil {
		say(RotateStep{Error: err.Error()})
		return
	}
	say(RotateStep{Keys: keys})
}

// Fault asks what is broken on purpose.
func (c Client) Fault(ctx context.Context) (*Fault, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	f := &Fault{}
	return f, c.json(ctx, http.MethodGet, c.Paths.UpSocket(), "/v1/fault", nil, f)
}

// Partition cuts groups of stores off from each other; no groups heal.
func (c Client) Partition(ctx context.Context, groups [][]string) (*Fault, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	f := &Fault{}
	if len(groups) == 0 {
		return f, c.json(ctx, http.MethodDelete, c.Paths.UpSocket(), "/v1/fault", nil, f)
	}
	return f, c.json(ctx, http.MethodPut, c.Paths.UpSocket(), "/v1/fault", Fault{Groups: groups}, f)
}

// Gossip asks which gossip keys are in use.
func (c Client) Gossip(ctx context.Context) (*GossipStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	s := &GossipStatus{}
	return s, c.json(ctx, http.MethodGet, c.Paths.UpSocket(), "/v1/gossip", nil, s)
}

// Rotate replaces the gossip key and tells each step that was done. It returns the fingerprints of the keys in use.
func (c Client) Rotate(ctx context.Context, step func(string)) ([]string, error) {
	body, err := c.open(ctx, http.MethodPost, c.Paths.UpSocket(), "/v1/gossip/rotate", nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	for d := json.NewDecoder(body); ; {
		var s RotateStep
		switch err := d.Decode(&s); {
		case errors.Is(err, io.EOF):
			return nil, errors.New("the mesh stopped before the key was changed")
		case err != nil:
			return nil, err
		case s.Error != "":
			return nil, errors.New(s.Error)
		case s.Keys != nil:
			return s.Keys, nil
		}
		step(s.Step)
	}
}
