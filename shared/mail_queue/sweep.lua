-- Frees what is stuck: threads whose head has no job or was canceled, and jobs that RQ's own code moved to failed.
--
-- ARGV  8 time as RQ writes it · 9 number of threads, then their names, then ids of failed jobs
-- Gives {threads that were freed, jobs that were put back}.
local iso, threads = ARGV[8], tonumber(ARGV[9])
local freed, adopted = 0, 0

for position = 10, 9 + threads do
    local thread = ARGV[position]
    local head = redis.call('LINDEX', THREAD .. thread, 0)
    local status = head and redis.call('HGET', JOB .. head, 'status')
    if head and (not status or status == 'canceled') then
        if status == 'canceled' then
            write_receipt(head, 'dropped', '0', {'reason', 'canceled'})
        end
        next_of_thread(head, thread, iso)
        freed = freed + 1
    end
end

-- Without a dead receipt of ours nobody has given this mail up: a stock worker failed it, which is a death.
for position = 10 + threads, #ARGV do
    local id = ARGV[position]
    local job = redis.call('HMGET', JOB .. id, 'status', 'deaths', 'thread')
    if job[1] == 'failed' and job[3] and redis.call('HGET', RECEIPT .. id, 'outcome') ~= 'dead' then
        redis.call('ZREM', FAILED, id)
        redis.call('DEL', RESULTS .. id)
        redis.call('PERSIST', JOB .. id)
        redis.call('HSET', JOB .. id, 'status', 'queued', 'deaths', tonumber(job[2] or '0') + 1)
        redis.call('RPUSH', QUEUE, id)
        adopted = adopted + 1
    end
end
return {freed, adopted}
