package serve

import (
	"net"
	"testing"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// TestWriterEndsWhereThePeerIsGone: what was still queued when the connection was lost must not keep its writer, and with it
// the connection's place and the server's Close, for ever.
func TestWriterEndsWhereThePeerIsGone(t *testing.T) {
	ours, theirs := net.Pipe()
	theirs.Close()
	c := &conn{server: &Server{}, net: ours, out: newOutbox()}
	for range 3 {
		c.out.answer(&storev1.Response{Id: 1})
	}
	c.out.close()
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write()
	}()
	select {
	case <-written:
	case <-time.After(5 * time.Second):
		t.Fatal("the writer waits for ever")
	}
}
