export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-5P70ZRW3.mjs";
