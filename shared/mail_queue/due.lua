-- Pauses that are over: their jobs come into the queue.
--
-- ARGV  8 most jobs at once · 9 time as RQ writes it
-- Gives the number of jobs that came into the queue.
local due = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', SCHEDULED, '-inf', now, 'LIMIT', 0, tonumber(ARGV[8]))) do
    redis.call('ZREM', SCHEDULED, id)
    if redis.call('HGET', JOB .. id, 'status') == 'scheduled' then
        redis.call('HSET', JOB .. id, 'status', 'queued', 'enqueued_at', ARGV[9])
        redis.call('RPUSH', QUEUE, id)
        due = due + 1
    end
end
return due
