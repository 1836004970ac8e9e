export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-K1WH02KJ.mjs";
