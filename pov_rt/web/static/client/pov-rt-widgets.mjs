export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-5BPZV6FI.mjs";
