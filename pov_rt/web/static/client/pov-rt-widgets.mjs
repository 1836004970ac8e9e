export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-3W0FWN3E.mjs";
