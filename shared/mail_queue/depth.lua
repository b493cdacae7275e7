-- How many jobs are in each of RQ's states, and how the head of the queue stands. Changes nothing.
--
-- KEYS  10 RQ's switch that suspends all workers
-- Gives {queued, started, scheduled, deferred, failed, suspended: 0 or 1, when the head was queued as RQ writes it or ''}.
local head = redis.call('LINDEX', QUEUE, 0)
local queued_at = head and redis.pcall('HGET', JOB .. head, 'enqueued_at')  -- no hash: no job
return {redis.call('LLEN', QUEUE), redis.call('ZCARD', STARTED), redis.call('ZCARD', SCHEDULED),
    redis.call('ZCARD', DEFERRED), redis.call('ZCARD', FAILED), redis.call('EXISTS', KEYS[OWN_KEYS + 1]),
    type(queued_at) == 'string' and queued_at or ''}
