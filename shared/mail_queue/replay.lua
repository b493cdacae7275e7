-- Dead letters that an operator wants to be sent after all: into the queue, with all counts at their beginning.
--
-- ARGV  8 time as RQ writes it · from 9 on: ids of mails
-- Gives the number of those that were dead letters.
local iso = ARGV[8]
local replayed = 0
for position = 9, #ARGV do
    local id = ARGV[position]
    if redis.call('HGET', JOB .. id, 'status') == 'failed' and redis.call('ZREM', FAILED, id) == 1 then
        redis.call('PERSIST', JOB .. id)
        -- `revived` is for `claim.lua`: the mail is judged from now on, and it starts the counts anew once.
        redis.call('HSET', JOB .. id, 'status', 'queued', 'enqueued_at', iso, 'ended_at', '', 'revived', '1',
            'attempts', '0', 'deaths', '0')
        redis.call('HDEL', JOB .. id, 'first_tried')
        redis.call('SADD', QUEUES, QUEUE)
        redis.call('RPUSH', QUEUE, id)
        replayed = replayed + 1
    end
end
return replayed
