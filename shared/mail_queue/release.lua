-- Puts claimed jobs back to the head of the queue, as if they had never been taken; only that the relay may have one
-- of them is remembered.
--
-- KEYS  10 the worker's executions
-- ARGV  8 time as RQ writes it, from 9 on, for each job: id · execution · perhaps ('1': the relay may have taken it),
--       in the order of taking
-- Gives {jobs that were put back, mails dropped as canceled}.
local released = 0

local function release(id, execution, perhaps)
    redis.call('SREM', KEYS[OWN_KEYS + 1], entry_of(id, execution))
    local mine = holds(id, execution)
    end_execution(id, execution)
    if mine and put_back(id, perhaps, ARGV[8], 0) then
        released = released + 1
    end
end

for position = #ARGV - 2, 9, -3 do
    local id, execution, perhaps = ARGV[position], ARGV[position + 1], ARGV[position + 2]
    attempt_or_die(id, execution, release, id, execution, perhaps)
end
return {released, canceled}
