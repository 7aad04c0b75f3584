// Package strong commits strong entities to etcd, fenced by the slot's owner and the entity's revision.
//
// The state store calls it through an interface of its own (Committer there). It never keeps entity state: what an owner
// may serve from memory is the store's affair, and Held tells it until when.
//
// Keys in etcd:
//
//	/holdfast/stores/<node>                        under the store's lease; value: home of the process (see Config.Home)
//	/holdfast/slots/<type>/<slot>                  under the owner's lease; value: owner's node name
//	/holdfast/entities/<type>/<slot>/<key>         the entity's record, never deleted by a lease
//
// Type, node and key are escaped so that they hold no slash; slots have four digits. The slot key's create revision is
// the slot's epoch. A commit is a transaction
//
//	if create(slot) == epoch && mod(entity) == expected  then put entity
//
// so a holder that was paused, cut off or declared dead cannot write, whatever any clock says. Commits of different
// entities that wait at the same time share one transaction; where its guards fail, it says which, and the others go
// again.
//
// Reads from memory need more than the transaction: Held is true while the time of sending the last answered keep-alive
// + TTL - margin lies ahead on CLOCK_BOOTTIME (which also counts suspension). Let r bound how much faster or slower than
// real time either machine's clock runs. Etcd waits at least TTL/(1+r) real time after that sending, and the owner stops
// at most (TTL - margin)/(1-r) after it, so margin >= TTL * 2r/(1+r) is safe. With margin = TTL/10 that is r <= 5 %,
// a hundred times what oscillators do and more than NTP ever slews.
//
// Record: version byte 1, flags byte (bit 0: exists), uvarint number of request ids, each id as uvarint length and
// bytes, then the value.
package strong
