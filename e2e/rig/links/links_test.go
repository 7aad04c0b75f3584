package links_test

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/e2e/rig/links"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A cut holds bytes back, one way or both, and a healed link delivers them.
func TestCutHoldsAndHealDelivers(t *testing.T) {
	n := links.New(func(port int) string {
		return []string{"somebody", "me"}[1+links.Owner(port, []int{os.Getpid()})]
	})
	defer n.Close()
	front := freeAddress(t)
	if err := n.Serve("server", front, echo(t)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", front)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say := func(text string) {
		t.Helper()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(d time.Duration) string {
		buf := make([]byte, 16)
		_ = c.SetReadDeadline(time.Now().Add(d))
		size, _ := c.Read(buf)
		return string(buf[:size])
	}
	const ok, silence = 10 * time.Second, 50 * time.Millisecond
	say("1")
	if got := hear(ok); got != "1" {
		t.Fatalf("heard %q on a whole link, want 1", got)
	}
	if n.Connected()[links.Way{From: "me", To: "server"}] != 1 {
		t.Fatalf("connected: %v, want one connection from me", n.Connected())
	}
	for i, ways := range [][]links.Way{links.Out("me", "server"), links.In("me", "server"), links.Both("me", "server")} {
		n.Cut(ways...)
		text := string(rune('a' + i))
		say(text)
		if got := hear(silence); got != "" {
			t.Errorf("heard %q through a cut of %v", got, ways)
		}
		if held := n.Held(ways...); held != 1 {
			t.Errorf("%d bytes held on %v, want 1", held, ways)
		}
		n.Heal(ways...)
		if got := hear(ok); got != text {
			t.Errorf("heard %q after the cut, want %q", got, text)
		}
	}
	n.Cut(links.Way{From: "other", To: "server"})
	say("2")
	if got := hear(ok); got != "2" {
		t.Errorf("heard %q while another's link is cut, want 2", got)
	}
	n.Cut(links.In("me", "server")...)
	say("3")
	n.Reset(links.In("me", "server")...)
	if got := hear(ok); got != "" {
		t.Errorf("heard %q on a connection that was reset", got)
	}
}
