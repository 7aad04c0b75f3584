package gossip

import (
	"context"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// For the tests from outside.
const (
	MaxMessageBytes  = maxMessageBytes
	MaxSlotKeysBytes = maxSlotKeysBytes
)

// Exchange is the state machine of one stream.
type Exchange struct{ *exchange }

func NewExchange(e Engine) Exchange { return Exchange{&exchange{engine: e, metrics: newMetrics(nil)}} }

// Take treats a message as a stream does, and returns the answers.
func (x Exchange) Take(m *replicationv1.Message) (answers []*replicationv1.Message, err error) {
	if d := m.GetDeltas(); d != nil {
		return nil, x.merge(context.Background(), d.GetDeltas())
	}
	x.answer(m, func(a *replicationv1.Message) bool {
		answers = append(answers, a)
		return true
	})
	return answers, nil
}

// Open opens a round.
func (x Exchange) Open() (out []*replicationv1.Message) {
	x.open(func(m *replicationv1.Message) bool {
		out = append(out, m)
		return true
	})
	return out
}

// Greet greets.
func Greet(ctx context.Context, c Conn, self *replicationv1.Hello) (*replicationv1.Hello, error) {
	return greet(ctx, c, self)
}
