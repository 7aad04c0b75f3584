package etcd

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Scan calls visit with every key of [from, to) in order. It reads page after page, each linearizably: what is written
// meanwhile may or may not be seen, and a value is not kept longer than visit has it.
func (c *Client) Scan(ctx context.Context, from, to string, visit func(KV)) error {
	limit := scanFirst
	for {
		page, err := c.Range(ctx, from, to, limit)
		if tooMuch(err) && limit > 1 {
			limit = max(1, limit/8)
			continue
		}
		if err != nil {
			return err
		}
		bytes := 0
		for _, kv := range page.KVs {
			bytes += len(kv.Key) + len(kv.Value)
			visit(kv)
		}
		if !page.More || len(page.KVs) == 0 {
			return nil
		}
		from = page.KVs[len(page.KVs)-1].Key + "\x00"
		limit = min(max(1, limit*scanBytes/max(bytes, 1)), 2*limit, scanMost)
	}
}

// tooMuch says that an answer was larger than this client takes. That is gRPC's word, not etcd's.
func tooMuch(err error) bool {
	return err != nil && sent(err) && status.Code(err) == codes.ResourceExhausted
}
