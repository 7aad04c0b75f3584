package stateclient

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/frame"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// TestWritersDoNotMix: calls that are written by their callers, by the writer, and by halves by both, arrive whole.
func TestWritersDoNotMix(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := here.(*net.UnixConn).SetWriteBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	c := &Client{opts: Options{}.withDefaults()}
	s := newSession(c, here)
	var running sync.WaitGroup
	running.Go(func() {
		s.run()
		s.fail()
	})
	defer running.Wait()
	defer here.Close()

	const rounds, callers = 50, 3
	answered := make(chan string, callers)
	go func() {
		var buf []byte
		for {
			payload, err := frame.Read(there, buf)
			if err != nil {
				return
			}
			req := &storev1.Request{}
			if err := proto.Unmarshal(payload, req); err != nil {
				t.Errorf("the store got %d bytes that are no request: %v", len(payload), err)
				return
			}
			reply, err := frame.Append(nil, &storev1.Response{Id: req.Id, Result: &storev1.Response_Committed{Committed: &storev1.Committed{}}})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := there.Write(reply); err != nil {
				return
			}
		}
	}()
	for round := range rounds {
		for caller := range callers {
			// From what fits into the socket to several times that.
			key := fmt.Sprint(round, caller, strings.Repeat("x", (round*callers+caller)*97))
			if err := s.start(&call{
				req:     &storev1.Request{Call: &storev1.Request_Commit{Commit: commit(key)}},
				timeout: time.Hour,
				done: func(_ *storev1.Response, err *Error) {
					if err != nil {
						t.Errorf("commit of %d bytes: %v", len(key), err)
					}
					answered <- key
				},
			}); err != nil {
				t.Fatal(err)
			}
		}
		for range callers {
			<-answered
		}
	}
}

// TestDirectWriteOfALostConnection: what the socket refused was not applied.
func TestDirectWriteOfALostConnection(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	there.Close()
	c := &Client{opts: Options{}.withDefaults()}
	s := newSession(c, here)
	told := make(chan *Error, 1)
	if err := s.start(&call{
		req:     &storev1.Request{Call: &storev1.Request_Commit{Commit: commit("k")}},
		timeout: time.Hour,
		done:    func(_ *storev1.Response, err *Error) { told <- err },
	}); err != nil {
		t.Fatal(err)
	}
	s.run()
	s.fail()
	if err := <-told; err == nil || err.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Fatalf("told %v", err)
	}
}
