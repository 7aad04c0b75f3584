package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

var partition = flag.Duration("partition", 10*time.Second, "how long TestConvergence cuts the stores in two")

const (
	// lossPercent of the datagrams between the stores are lost.
	lossPercent = 10
	// The promises: from acknowledgement to visible at all stores while datagrams are lost, and from the end of a partition
	// to the same state everywhere.
	visibleP50, visibleP99, visibleAfterCut = time.Second, 3 * time.Second, 10 * time.Second
)

// Five stores of which datagrams are lost, and which are cut in two for a while, show every write everywhere soon.
func TestConvergence(t *testing.T) {
	space := lossyNetwork(t)
	c := startStores(t, stores.Options{
		Count: lostStores, TLS: true, Faults: true, Prefix: []string{"ip", "netns", "exec", space},
		Types: []*configv1.EntityType{counterType(configv1.WriteLevel_WRITE_LEVEL_LOCAL)},
	})
	dropped := droppedIn(t, space)
	all, err := c.Follow(t.Context(), testCounter, "followed", 300, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	p50, p99 := all[len(all)/2], all[len(all)*99/100]
	t.Logf("%d writes while %d %% of datagrams are lost: visible at all %d stores after p50 %v, p99 %v, max %v; %d datagrams were lost",
		len(all), lossPercent, lostStores, p50, p99, all[len(all)-1], droppedIn(t, space)-dropped)
	if p50 > visibleP50 || p99 > visibleP99 {
		t.Errorf("p50 %v and p99 %v, want at most %v and %v", p50, p99, visibleP50, visibleP99)
	}
	if droppedIn(t, space) == 0 {
		t.Error("no datagram was lost: this proves nothing")
	}
	cutAndHeal(t, c)
}

// cutAndHeal cuts two stores off from three, lets both sides write, and measures how long they take to agree again.
func cutAndHeal(t *testing.T, c *stores.Cluster) {
	const key = "cut"
	some, others := []int{0, 1}, []int{2, 3, 4}
	add := func(i, n int) {
		conn, err := c.Dial(i)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range n {
			if _, err := conn.Commit(t.Context(), testCounter, key, lostDeadline, stores.Increment()); err != nil {
				t.Fatal(err)
			}
		}
	}
	value := func(i int) uint64 {
		conn, err := c.Dial(i)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		state, err := conn.Get(t.Context(), testCounter, key, false)
		if err != nil {
			t.Fatal(err)
		}
		return state.GetValue().GetGcounter()
	}
	if err := c.Cut(t.Context(), some, others); err != nil {
		t.Fatal(err)
	}
	const writes = 10
	rounds := 0
	pace := time.NewTicker(*partition / 20)
	defer pace.Stop()
	for until := time.Now().Add(*partition); time.Now().Before(until); rounds++ {
		add(some[rounds%len(some)], writes)
		add(others[rounds%len(others)], 2*writes)
		<-pace.C
	}
	for i := range c.Count() {
		if got, whole := value(i), uint64(3*writes*rounds); got >= whole {
			t.Errorf("store %d has %d of %d increments during the partition: it is none", i+1, got, whole)
		}
	}
	healed := time.Now()
	if err := c.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := rig.PollFor(2*visibleAfterCut, func() error {
		v, err := same(t.Context(), c, key)
		if want := int64(3 * writes * rounds); err == nil && v != want {
			err = fmt.Errorf("%d of %d", v, want)
		}
		return err
	})
	took := time.Since(healed)
	t.Logf("after a partition of %v with %d increments at both sides all stores were the same in %v", *partition, 3*writes*rounds, took)
	if err != nil || took > visibleAfterCut {
		t.Errorf("after %v: %v; want all the same within %v", took, err, visibleAfterCut)
	}
}

// lossyNetwork makes a network namespace whose loopback loses datagrams; the stores' Unix sockets reach out of it.
func lossyNetwork(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "losing datagrams needs a network namespace, and that needs root")
	}
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			cannot(t, tool+" is not installed (Debian: iproute2, iptables)")
		}
	}
	space := fmt.Sprintf("hf-e2e-%d", os.Getpid())
	if err := command(t.Context(), "ip", "netns", "add", space); err != nil {
		cannot(t, err.Error())
	}
	t.Cleanup(func() {
		if err := command(context.Background(), "ip", "netns", "del", space); err != nil {
			t.Error(err)
		}
	})
	for _, line := range []string{
		"ip -n " + space + " link set lo up",
		fmt.Sprintf("ip netns exec %s iptables -A INPUT -p udp -m statistic --mode random --probability %.2f -j DROP", space, lossPercent/100.0),
	} {
		if err := command(t.Context(), strings.Fields(line)...); err != nil {
			cannot(t, err.Error())
		}
	}
	return space
}

// droppedIn is how many datagrams the namespace has lost.
func droppedIn(t *testing.T, space string) int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", "netns", "exec", space, "iptables", "-vnxL", "INPUT").CombinedOutput()
	if err != nil {
		t.Fatalf("iptables: %v %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "DROP" {
			n, err := strconv.Atoi(fields[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no rule in %s", out)
	return 0
}

func command(ctx context.Context, line ...string) error {
	out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", strings.Join(line, " "), err), errors.New(strings.TrimSpace(string(out))))
	}
	return nil
}

// cannot skips a test that this machine can't run. In CI that is a failure: a check that was not made proves nothing.
func cannot(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("can't be run here: %s", why)
	}
	t.Skip(why)
}
