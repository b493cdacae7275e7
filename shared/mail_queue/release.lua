-- Puts claimed jobs back to the head of the queue, as if they had never been taken: no attempt, no death; only that
-- the relay may have one of them is remembered.
--
-- KEYS  8 the worker's executions
-- ARGV  from 8 on, for each job: id · execution · perhaps ('1': the relay may have taken it), in the order of taking
-- Gives the number of jobs that were put back.
local released = 0
for position = #ARGV - 2, 8, -3 do
    local id, execution, perhaps = ARGV[position], ARGV[position + 1], ARGV[position + 2]
    local mine = holds(id, execution)
    end_execution(id, execution)
    redis.call('SREM', KEYS[OWN_KEYS + 1], entry_of(id, execution))
    if mine then
        local status = redis.call('HGET', JOB .. id, 'status')
        redis.call('ZREM', FAILED, id)  -- where a stale write of RQ's may have put it
        redis.call('PERSIST', JOB .. id)
        redis.call('HSET', JOB .. id, 'status', 'queued', 'claim', '', 'deaths', '0')
        if perhaps == '1' then
            redis.call('HSET', JOB .. id, 'perhaps', '1')
        end
        if status ~= 'queued' then
            redis.call('LPUSH', QUEUE, id)
            released = released + 1
        end
    end
end
return released
