export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-1ZHTNWAR.mjs";
