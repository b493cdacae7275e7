-- Frees what is stuck: mails that wait behind a head that nobody will settle, or in a thread that was lost; mails that
-- an operator has canceled; mails that RQ's own code moved to failed.
--
-- ARGV  8 time as RQ writes it · 9 number of deferred jobs · 10 number of canceled ones, then the ids of the deferred
--       in the order in which they were put, of the canceled, and of failed ones
-- Gives {threads that were freed, jobs that were put back, mails dropped as canceled, faults}.
local iso, deferred, to_drop = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local freed, adopted = 0, 0

local function free(id)
    local job = redis.call('HMGET', JOB .. id, 'status', 'thread')
    if job[1] ~= 'deferred' then
        return redis.call('ZREM', DEFERRED, id)
    end
    local thread = job[2]
    if not thread then
        return  -- no mail: RQ's own business
    end
    if not redis.call('LPOS', THREAD .. thread, id) then
        redis.call('RPUSH', THREAD .. thread, id)
        redis.call('EXPIRE', THREAD .. thread, MONTH)
    end
    local head = redis.call('LINDEX', THREAD .. thread, 0)
    if head == id then
        enqueue(id, thread, iso)
        freed = freed + 1
    elseif is_over(head) then
        next_of_thread(head, thread, iso)
        freed = freed + 1
    end
end

local function drop(id)
    local job = redis.call('HMGET', JOB .. id, 'status', 'thread')
    if not job[1] then
        redis.call('ZREM', CANCELED, id)
    elseif job[1] == 'canceled' and drop_canceled(id) then
        next_of_thread(id, job[2] or '', iso)
    end
end

-- Nobody of ours has given this mail up: a stock worker failed it, which is a death.
local function adopt(id)
    local job = redis.call('HMGET', JOB .. id, 'status', 'deaths', 'thread')
    if job[1] == 'failed' and job[3] and not is_dead(id) then
        redis.call('ZREM', FAILED, id)
        redis.call('DEL', RESULTS .. id)
        redis.call('PERSIST', JOB .. id)
        redis.call('HSET', JOB .. id, 'status', 'queued', 'deaths', count(job[2]) + 1)
        redis.call('RPUSH', QUEUE, id)
        adopted = adopted + 1
    end
end

for position = 11, #ARGV do
    local action = position <= 10 + deferred and free or position <= 10 + deferred + to_drop and drop or adopt
    attempt(ARGV[position], action, ARGV[position])
end
return {freed, adopted, canceled, faults}
