package strong

// Sizes shows how much is in memory, for tests.
func (c *Commands) Sizes() (entities int) { c.mu.Lock(); defer c.mu.Unlock(); return len(c.entities) }

// ForgetAll forgets what may be forgotten.
func (c *Commands) ForgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entities {
		c.forget(e)
	}
}
