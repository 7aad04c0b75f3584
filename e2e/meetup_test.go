package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// compact is a reply's JSON with its fields in order and no white space.
func compact(r *rig.Reply) (string, error) {
	var body any
	if err := r.JSON(&body); err != nil {
		return "", err
	}
	raw, err := json.Marshal(body)
	return string(raw), err
}

// examples/meetup: a Python process with three shapes of state, driven as a user would.
func TestMeetup(t *testing.T) {
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	m := own(t, rig.Options{Nodes: 3, Config: filepath.Join(root, "examples/meetup/holdfast.yaml")})
	path := "/v1/meetups/" + newKey(t)
	for _, address := range append(m.Ingresses(), m.Gateway()) {
		within(t, 60*time.Second, func() error {
			for _, part := range []string{"/seats", "/guests", "/tasks"} {
				if _, err := ok(m.Get(address, path+part)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	shows := func(part, want string) {
		t.Helper()
		within(t, 15*time.Second, agree(append(m.Ingresses(), m.Gateway()), func(a string) (string, error) {
			r, err := ok(m.Get(a, path+part))
			if err != nil {
				return "", err
			}
			return compact(r)
		}, exactly(want)))
	}

	seats := func(node int, verb string, n int) (*rig.Reply, error) {
		return m.Post(m.Ingress(node), path+"/seats:"+verb, map[string]int{"seats": n})
	}
	must(t)(seats(1, "open", 9))
	shows("/seats", `{"seats":9}`)
	for node := 1; node <= 3; node++ {
		must(t)(seats(node, "take", 3))
	}
	shows("/seats", `{"seats":0}`)
	for node := 1; node <= 3; node++ {
		r, err := seats(node, "take", 1)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != http.StatusBadRequest || statusCode(r) != 9 {
			t.Errorf("a seat too many at node %d: %d %s, want 400 with code 9", node, r.Status, r.Body)
		}
	}
	must(t)(seats(2, "giveback", 1))
	must(t)(seats(2, "take", 1))
	shows("/seats", `{"seats":0}`)

	for node, name := range []string{"Grace", "Ada", "Edsger"} {
		must(t)(m.Post(m.Ingress(1+node), path+"/guests", map[string]string{"name": name}))
	}
	shows("/guests", `{"names":["Ada","Edsger","Grace"]}`)
	must(t)(m.Do(http.MethodDelete, m.Ingress(1), path+"/guests/Edsger", nil, nil))
	shows("/guests", `{"names":["Ada","Grace"]}`)

	for node := 1; node <= 3; node++ {
		must(t)(m.Post(m.Ingress(node), path+"/tasks", map[string]any{"task": fmt.Sprint("task ", node), "done": node != 2}))
	}
	shows("/tasks", `{"tasks":{"task 1":true,"task 2":false,"task 3":true}}`)
	must(t)(m.Post(m.Ingress(3), path+"/tasks", map[string]any{"task": "task 1", "done": false}))
	shows("/tasks", `{"tasks":{"task 1":false,"task 2":false,"task 3":true}}`)
}
