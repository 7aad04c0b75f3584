// Package strong commits strong entities to etcd, fenced by the slot's owner and the entity's revision.
//
// The state store calls it through an interface of its own (Committer there). It knows neither what is in heads and cells
// nor keeps any of it: what an owner may serve from memory is the store's affair, and Held tells it until when. When that
// is, is decided in package ownership; this one carries its requests out.
//
// Keys in etcd:
//
//	/holdfast/stores/<node>                             under the store's lease; value: home of the process (see Config.Home)
//	/holdfast/slots/<type>/<slot>                       under the owner's lease; value: owner's node name
//	/holdfast/entities/<type>/<slot>/<key>              the entity's head
//	/holdfast/cells/<type>/<slot>/<key>/<cell>          its cells
//	/holdfast/due/<type>/<unix seconds>/<slot>/<key>    a mark: look at the entity at that time
//
// Type, node and key are escaped so that they hold no slash; slots have four digits, times twelve. The slot key's create
// revision is the slot's epoch. A commit is a transaction
//
//	if, for each entity, create(slot) == epoch && mod(head) == revision  then put heads and cells, delete cells, put and delete marks
//
// so a holder that was paused, cut off or declared dead cannot write, whatever any clock says. Commits that wait at the
// same time share one transaction; where its guards fail, it says which, and the others go again. A commit's own writes
// stay together.
//
// A transaction that had no answer is sent again until the commit's time is over. It is applied at most once, because its
// first application makes its guards fail; and that it was applied is seen from a head in etcd that is the one which was to
// be written. Commits write heads that no other commit writes: they have the request's id in them.
package strong
