-- Dead letters that nobody will want any more. Their receipts stay: what is dead is not made again.
--
-- ARGV  from 8 on: ids of mails
-- Gives the number of those that were dead letters.
local forgotten = 0
for position = 8, #ARGV do
    local id = ARGV[position]
    if redis.call('ZSCORE', FAILED, id) then
        forget_job(id)
        forgotten = forgotten + 1
    end
end
return forgotten
