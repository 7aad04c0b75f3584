package linear

import (
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/links"
)

const (
	// faultTime is how long something stays broken: longer than a lease.
	faultTime = 3500 * time.Millisecond
	// slowBy delays each piece on a slow link.
	slowBy = 60 * time.Millisecond
	// backWait bounds how long a process may take to be started again.
	backWait = 30 * time.Second
	// effectWait is how long the effect of a fault is looked for while it lasts.
	effectWait = 6 * time.Second
)

// broken is what is broken now.
type broken struct {
	// effect looks for a proof that something broke, for a while, and says what it is.
	effect func() (string, error)
	heal   func() error
}

// fault breaks something of a world.
type fault struct {
	name string
	// on breaks it. Victim is a node, counted from 1.
	on func(w *world, victim int) (*broken, error)
}

var faults = []fault{
	{"etcd-leader-killed", func(w *world, _ int) (*broken, error) {
		return leader(w, w.etcd.Crash, w.etcd.Launch)
	}},
	{"etcd-leader-paused", func(w *world, _ int) (*broken, error) {
		return leader(w, w.etcd.Pause, w.etcd.Resume)
	}},
	{"etcd-leader-cut-from-members", func(w *world, _ int) (*broken, error) {
		return leader(w, cutMember(w, links.Both, false), healMember(w))
	}},
	{"etcd-leader-mute", func(w *world, _ int) (*broken, error) {
		return leader(w, cutMember(w, links.Out, false), healMember(w))
	}},
	{"etcd-leader-deaf", func(w *world, _ int) (*broken, error) {
		return leader(w, cutMember(w, links.In, false), healMember(w))
	}},
	{"etcd-leader-cut-from-all", func(w *world, _ int) (*broken, error) {
		return leader(w, cutMember(w, links.Both, true), healMember(w))
	}},
	{"etcd-leader-slow", func(w *world, _ int) (*broken, error) {
		l, err := w.etcd.Leader()
		if err != nil {
			return nil, err
		}
		return slow(w, links.Both(w.etcd.Names()[l.Member], w.etcd.Others(l.Member)...)), nil
	}},
	{"store-killed", func(w *world, victim int) (*broken, error) {
		return killed(w, victim, func(n rig.NodeStatus) int { return n.StorePID })
	}},
	{"store-paused", func(w *world, victim int) (*broken, error) {
		return paused(w, victim, func(n rig.NodeStatus) int { return n.StorePID })
	}},
	{"store-cut-from-etcd", func(w *world, victim int) (*broken, error) {
		return cut(w, links.Both(nodeName(victim), w.etcd.Names()...)), nil
	}},
	{"store-mute-to-etcd", func(w *world, victim int) (*broken, error) {
		return cut(w, links.Out(nodeName(victim), w.etcd.Names()...)), nil
	}},
	{"store-deaf-to-etcd", func(w *world, victim int) (*broken, error) {
		return cut(w, links.In(nodeName(victim), w.etcd.Names()...)), nil
	}},
	{"store-slow-to-etcd", func(w *world, victim int) (*broken, error) {
		return slow(w, links.Both(nodeName(victim), w.etcd.Names()...)), nil
	}},
	{"stores-cut-from-each-other", func(w *world, victim int) (*broken, error) {
		if _, err := w.Run("fault", "partition", nodeName(victim)); err != nil {
			return nil, err
		}
		return &broken{
			effect: func() (string, error) {
				out, err := w.Run("fault", "status")
				if err == nil && !strings.Contains(out, "partition: "+nodeName(victim)) {
					err = fmt.Errorf("fault status: %s", out)
				}
				return strings.TrimSpace(out), err
			},
			heal: func() error { _, err := w.Run("fault", "heal"); return err },
		}, nil
	}},
	{"envoy-killed", func(w *world, victim int) (*broken, error) {
		return killed(w, victim, func(n rig.NodeStatus) int { return n.EnvoyPID })
	}},
	{"envoy-paused", func(w *world, victim int) (*broken, error) {
		return paused(w, victim, func(n rig.NodeStatus) int { return n.EnvoyPID })
	}},
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }

// leader breaks the member that leads; the effect is that the others have another leader.
func leader(w *world, on, off func(int) error) (*broken, error) {
	was, err := w.etcd.Leader()
	if err != nil {
		return nil, err
	}
	if err := on(was.Member); err != nil {
		return nil, err
	}
	return &broken{
		effect: func() (string, error) {
			now, err := w.etcd.LeaderOfOthers(was.Member)
			if err == nil && (now.Member == was.Member || now.Term <= was.Term) {
				err = fmt.Errorf("the leader still is %v", now)
			}
			return fmt.Sprintf("leader was %v, then %v", was, now), err
		},
		heal: func() error { return off(was.Member) },
	}, nil
}

// cutMember cuts a member from the others, and from its clients too where all is set.
func cutMember(w *world, side func(string, ...string) []links.Way, all bool) func(int) error {
	return func(i int) error {
		others := w.etcd.Others(i)
		if all {
			others = append(others, clients()...)
		}
		w.net.Cut(side(w.etcd.Names()[i], others...)...)
		return nil
	}
}

func healMember(w *world) func(int) error {
	return func(i int) error {
		w.net.Heal(links.Both(w.etcd.Names()[i], append(w.etcd.Others(i), clients()...)...)...)
		return nil
	}
}

// clients are etcd's, as their links name them.
func clients() []string {
	names := []string{"other"}
	for i := range nodeCount {
		names = append(names, nodeName(i+1))
	}
	return names
}

func cut(w *world, ways []links.Way) *broken {
	w.net.Cut(ways...)
	return onLinks(w, ways)
}

func slow(w *world, ways []links.Way) *broken {
	w.net.Slow(slowBy, ways...)
	return onLinks(w, ways)
}

func onLinks(w *world, ways []links.Way) *broken {
	return &broken{
		effect: func() (string, error) {
			held := w.net.Held(ways...)
			if held == 0 {
				return "", errors.New("nothing had to wait")
			}
			return fmt.Sprintf("%d bytes had to wait, as from %s to %s", held, ways[0].From, ways[0].To), nil
		},
		heal: func() error {
			w.net.Heal(ways...)
			return nil
		},
	}
}

// killed is kill -9 of a node's process. It is started again by the supervisor.
func killed(w *world, victim int, pid func(rig.NodeStatus) int) (*broken, error) {
	n, err := w.Node(nodeName(victim))
	if err != nil {
		return nil, err
	}
	was := pid(n)
	if err := w.Kill(was); err != nil {
		return nil, err
	}
	return &broken{
		effect: func() (string, error) {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", was)); err == nil {
				return "", fmt.Errorf("process %d still runs", was)
			}
			return fmt.Sprintf("process %d of %s ended", was, n.Name), nil
		},
		heal: func() error {
			return rig.PollFor(backWait, func() error {
				now, err := w.Node(n.Name)
				if err == nil && (pid(now) == 0 || pid(now) == was) {
					err = fmt.Errorf("%s's process is %d, was %d", n.Name, pid(now), was)
				}
				return err
			})
		},
	}, nil
}

// paused is SIGSTOP of a node's process.
func paused(w *world, victim int, pid func(rig.NodeStatus) int) (*broken, error) {
	n, err := w.Node(nodeName(victim))
	if err != nil {
		return nil, err
	}
	which := pid(n)
	if err := w.Pause(which); err != nil {
		return nil, err
	}
	return &broken{
		effect: func() (string, error) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", which))
			if err == nil && !strings.Contains(string(stat), ") T ") {
				err = fmt.Errorf("process %d is not stopped: %s", which, stat)
			}
			return fmt.Sprintf("process %d of %s stood still", which, n.Name), err
		},
		heal: func() error { return w.Resume(which) },
	}, nil
}

// order returns the faults that match, each as often as the others, in an order that follows the seed.
func order(seed uint64, match func(string) bool) func() fault {
	random := mathrand.New(mathrand.NewPCG(seed, 99))
	var rest []fault
	return func() fault {
		if len(rest) == 0 {
			for _, f := range faults {
				if match(f.name) {
					rest = append(rest, f)
				}
			}
			random.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		}
		f := rest[0]
		rest = rest[1:]
		return f
	}
}
